"""Who gets the credential: W&B's own origin, and nobody else."""

from __future__ import annotations

from urllib.parse import urlsplit

from requests import PreparedRequest
from requests.auth import AuthBase

from wb_ops.client.credentials import Credential

_DEFAULT_PORTS = {"http": 80, "https": 443}


class WandbAuth(AuthBase):
    """Signs requests to `base_url`; leaves every other request as it is.

    It is passed with each request, because `requests` would otherwise take a netrc entry: one
    for the same host replaces the explicit key, and a `default` one goes to any host.
    """

    def __init__(self, base_url: str, credential: Credential) -> None:
        self._origin = _origin(base_url)
        self._path = urlsplit(base_url).path.rstrip("/") + "/"
        self._credential = credential

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        if request.url and self.is_ours(request.url):
            self._credential.sign(request)
        return request

    def is_ours(self, url: str) -> bool:
        """Whether `url` has the scheme, host, port and path prefix of the base URL."""
        return _origin(url) == self._origin and urlsplit(url).path.startswith(self._path)


class Unsigned(AuthBase):
    """Leaves a request as it is, where no auth at all would let `requests` read netrc."""

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        return request


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or _DEFAULT_PORTS.get(parts.scheme)
