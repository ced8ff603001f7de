"""Finds values in config, summary and history that look like keys, tokens or passwords.

Only where they are is told, never what they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from wb_ops.tables.values import parse_json, pointer_token

REDACTED = "[redacted]"

# Prefixes that the issuers chose so that scanners find them.
_TOKENS = (
    r"wandb_v\d_[A-Za-z0-9_]{20,}",
    r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    r"\b(?:ghp|gho|ghu|ghs|ghr)_[A-Za-z0-9]{36,}",
    r"\bgithub_pat_[A-Za-z0-9_]{22,}",
    r"\bglpat-[A-Za-z0-9_\-]{20,}",
    r"\bhf_[A-Za-z0-9]{30,}",
    r"\bsk-(?:proj-|ant-|svcacct-)?[A-Za-z0-9_\-]{20,}",
    r"\bxox[abeoprs]-[A-Za-z0-9\-]{10,}",
    r"hooks\.slack\.com/services/[A-Za-z0-9/]{20,}",
    r"\bAIza[0-9A-Za-z_\-]{35}",
    r"\bnpm_[A-Za-z0-9]{36}\b",
    r"\bdapi[0-9a-f]{32}\b",
    r"\beyJ[A-Za-z0-9_\-]{10,}\.eyJ[A-Za-z0-9_\-]{10,}\.[A-Za-z0-9_\-]*",
    r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----",
    r"[a-z][a-z0-9+.\-]*:/{2}[^\s/:@]*:[^\s/@]+@",
)
# RE2 and Python read it alike: Arrow filters whole columns with it.
TOKEN_PATTERN = "|".join(_TOKENS)
_TOKEN = re.compile(TOKEN_PATTERN)

# W&B's first keys and AWS's secret ones are bare hex or base64, as a commit is: there the member's
# name decides. A name alone is not enough: pad_token, tokenizer, eos_token_id.
_SECRET_NAME = re.compile(
    r"(?i)(?:api|access|secret|private|account|wandb)[_\-. ]?key|secret|passw(?:or)?d|passphrase"
    r"|token|credential|auth"
)
_OPAQUE = re.compile(r"(?=.*[0-9])(?=.*[A-Za-z])[A-Za-z0-9_\-./+=]{20,}")


def suspect_paths(text: str | None, prefix: str) -> list[str]:
    """Name the members of a JSON document that look like secrets, as JSON pointers.

    Args:
        text: a document as the server sends it; None and what is no JSON have none.
        prefix: put in front of each pointer, such as "/config".
    """
    if not text or not (_TOKEN.search(text) or _SECRET_NAME.search(text)):
        return []
    try:
        document = parse_json(text)
    except ValueError:
        return []
    return sorted(set(_suspects(document, prefix, "")))


def redacted(value: Any, name: str = "") -> Any:
    """Return a JSON value with REDACTED in the place of what looks like a secret."""
    if isinstance(value, str):
        return REDACTED if looks_secret(value, name) else value
    if isinstance(value, Mapping):
        return {_safe(key): redacted(member, _own_name(key, name)) for key, member in value.items()}
    if isinstance(value, list):
        return [redacted(member, name) for member in value]
    return value


def looks_secret(value: str, name: str = "") -> bool:
    """Whether a text looks like a secret, under a member of this name."""
    if _TOKEN.search(value):
        return True
    return bool(_SECRET_NAME.search(name)) and _OPAQUE.fullmatch(value) is not None


def _suspects(value: object, path: str, name: str) -> Iterator[str]:
    if isinstance(value, str):
        if looks_secret(value, name):
            yield path
    elif isinstance(value, Mapping):
        for key, member in value.items():
            here = f"{path}/{pointer_token(_safe(key))}"
            if _safe(key) != key:
                yield here
            yield from _suspects(member, here, _own_name(key, name))
    elif isinstance(value, list):
        for index, member in enumerate(value):
            yield from _suspects(member, f"{path}/{index}", name)


def _own_name(key: str, parent: str) -> str:
    # W&B wraps each config value in {"value": ...}: its name is the member above.
    return parent if key == "value" else key


def _safe(key: str) -> str:
    return REDACTED if _TOKEN.search(key) else key
