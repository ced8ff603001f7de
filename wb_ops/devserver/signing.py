"""Signed URLs that expire, as object stores give them out."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Mapping
from urllib.parse import quote


class Signer:
    """Signs paths of the storage origin with a key that lives as long as the server."""

    def __init__(self, origin: str, ttl_s: float) -> None:
        self._origin = origin
        self._key = secrets.token_bytes(32)
        self.ttl_s = ttl_s

    def url(self, *segments: str, verb: str = "read", expired: bool = False) -> str:
        """A signed URL below the storage origin.

        Args:
            segments: Path segments; the URL holds them percent-encoded, the signature as they are.
            verb: ``read`` for GET and HEAD, ``write`` for PUT.
            expired: Sign a moment that has passed already.
        """
        path = "/" + "/".join(segments)
        expires = int(time.time() - 60 if expired else time.time() + self.ttl_s)
        signature = self._sign(verb, path, str(expires))
        return f"{self._origin}{quote(path)}?X-Expires={expires}&X-Signature={signature}"

    def refusal(self, verb: str, path: str, query: Mapping[str, str]) -> str | None:
        """Why a request is refused, or None where its signature holds and has not expired."""
        expires = query.get("X-Expires", "")
        expected = self._sign(verb, path, expires)
        if not hmac.compare_digest(expected.encode(), query.get("X-Signature", "").encode()):
            return "The request signature we calculated does not match."
        return None if time.time() < int(expires) else "Request has expired"

    def _sign(self, verb: str, path: str, expires: str) -> str:
        message = f"{verb}\n{path}\n{expires}".encode()
        return hmac.new(self._key, message, hashlib.sha256).hexdigest()
