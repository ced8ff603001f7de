"""API keys: who is asking, and what they may do."""

from __future__ import annotations

import base64
import binascii
import re
import secrets
import threading
import time
from collections.abc import Mapping
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


class Accounts:
    """Who stands behind a credential: API keys, and access tokens given for identity tokens."""

    def __init__(
        self,
        api_keys: Mapping[str, ApiKey],
        identity_tokens: Mapping[str, ApiKey],
        access_token_ttl_s: int,
    ) -> None:
        self.api_keys = dict(api_keys)
        self._identity_tokens = dict(identity_tokens)
        self._ttl_s = access_token_ttl_s
        self._given: dict[str, tuple[ApiKey, float]] = {}
        self._lock = threading.Lock()

    def exchange(self, identity_token: str) -> tuple[str, int] | None:
        """A new access token and its seconds, or None for a JWT that nobody is known by."""
        account = self._identity_tokens.get(identity_token)
        if account is None:
            return None
        token = secrets.token_urlsafe(32)
        with self._lock:
            self._given[token] = account, time.time() + self._ttl_s
        return token, self._ttl_s

    def find(self, authorization: str | None) -> tuple[bool, ApiKey | None]:
        """Whether the header holds a credential, and whose it is: None for an unknown key."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() == "bearer":
            account, expires = self._given.get(token, (None, 0.0))
            is_valid = account is not None and time.time() < expires
            return is_valid, account
        key = read_credential(authorization)
        return key is not None, self.api_keys.get(key or "")


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
