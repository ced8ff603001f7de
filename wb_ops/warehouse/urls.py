"""URLs as they may be shown, and what in them may not."""

from __future__ import annotations

import re
from urllib.parse import unquote

# Libraries quote the URLs that they ask for: user and query may be credentials.
_USERINFO = re.compile(r"(?<=://)[^/@\s]+@")
_QUERY = re.compile(r"(://[^\s?'\"]+)\?[^\s'\"]+")

# A password that is not quoted breaks its URL: it may hold any sign, and end at any @.
_PASSWORDS = (
    re.compile(r"://[^:/?\s]*:([^/?\s]+)@"),
    re.compile(r"://[^:/@?\s]*:(\S+)@"),
)
_OPTION = re.compile(r"[?&]([^=?&\s]*)=([^&\s]+)")
# The same where the text is one URL, in which a blank is only one more such sign.
_PASSWORDS_OF_ONE = (*_PASSWORDS, re.compile(r"\A\s*[\w+.-]+://[^:/@?]*:(.+)@", re.DOTALL))
_OPTION_OF_ONE = re.compile(r"[?&]([^=?&]*)=([^&]+)")
_ONE = re.compile(r"\s*[\w+.-]+://")


def without_secrets(text: str) -> str:
    """Take user names, passwords and queries out of the URLs in a text."""
    return _QUERY.sub(r"\1", _USERINFO.sub("", text))


def passwords_in(text: str) -> set[str]:
    """Return what may be a password in the URLs in a text, as it stands there and unquoted.

    One that breaks its URL counts, in each way to read it; with its blanks where the text begins
    with the URL. Too much rather than too little: `pg://host:1/db?user=a@b` has `1/db?user=a`.
    """
    is_one = _ONE.match(text) is not None
    patterns, option = (_PASSWORDS_OF_ONE, _OPTION_OF_ONE) if is_one else (_PASSWORDS, _OPTION)
    found = {one for pattern in patterns for one in pattern.findall(text)}
    found |= {value for name, value in option.findall(text) if "password" in unquote(name).lower()}
    return found | {unquote(one) for one in found}
