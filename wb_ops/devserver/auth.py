"""API keys: who is asking, and what they may do."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass

DEV_API_KEY = "devkeydevkeydevkeydevkeydevkeydevkey0000"
"""The key that every dev server accepts by default: 40 characters, and no secret."""

_KEY_BODY = re.compile(r"[\w-]{40,}", re.ASCII)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """The account behind an API key.

    Args:
        username: The account's name, shown as the creator of its runs.
        entity: The default entity; the username where it is empty.
        read_only: Whether writes are refused with HTTP 403.
    """

    username: str = "dev"
    entity: str = ""
    read_only: bool = False

    @property
    def default_entity(self) -> str:
        """The entity that paths without one belong to."""
        return self.entity or self.username


def read_credential(authorization: str | None) -> str | None:
    """The API key in an ``Authorization`` header, or None where it is absent or malformed.

    W&B takes the key as the password of HTTP Basic for the user ``api``; a key has at least 40
    letters, digits, dashes and underscores after an optional ``prefix-``.
    """
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, _, key = base64.b64decode(token, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return key if user == "api" and is_well_formed(key) else None


def is_well_formed(key: str) -> bool:
    """Whether a key has the form that W&B's own client accepts."""
    head, dash, tail = key.partition("-")
    return bool(_KEY_BODY.fullmatch(tail if dash else head))
