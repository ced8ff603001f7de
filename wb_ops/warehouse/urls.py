"""URLs as they may be shown."""

from __future__ import annotations

import re

# Libraries quote the URLs that they ask for: user and query may be credentials.
_USERINFO = re.compile(r"(?<=://)[^/@\s]+@")
_QUERY = re.compile(r"(://[^\s?'\"]+)\?[^\s'\"]+")


def without_secrets(text: str) -> str:
    """Take user names, passwords and queries out of the URLs in a text."""
    return _QUERY.sub(r"\1", _USERINFO.sub("", text))
