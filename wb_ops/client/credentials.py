"""What requests are signed with: an API key, or access tokens given for an identity token."""

from __future__ import annotations

import base64
import json
import logging
import os
import secrets
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from requests import PreparedRequest
from requests.auth import HTTPBasicAuth

from wb_ops.errors import AuthenticationFailed
from wb_ops.settings import Settings

log = logging.getLogger("wb_ops")

# As long as new attempts of one request may begin (`max_total_s`).
RENEW_BEFORE = timedelta(minutes=5)
_EXPIRES_AT = "%Y-%m-%d %H:%M:%S"

Exchange = Callable[[str], Mapping[str, Any]]


class Credential(Protocol):
    """Signs requests; `secrets` are the texts that no log and no error may show."""

    @property
    def secrets(self) -> tuple[str, ...]: ...
    def sign(self, request: PreparedRequest) -> None: ...
    def renew(self, exchange: Exchange) -> None: ...


def credential_of(settings: Settings) -> Credential:
    """The credential that the settings name."""
    if settings.identity_token_file is None:
        return KeyCredential(settings.api_key)
    return TokenCredential(
        settings.base_url, settings.identity_token_file, settings.credentials_file
    )


class KeyCredential:
    """An API key, sent as the password of HTTP Basic."""

    def __init__(self, api_key: str) -> None:
        self._basic = HTTPBasicAuth("api", api_key)
        self.secrets = (api_key, base64.b64encode(f"api:{api_key}".encode()).decode())

    def sign(self, request: PreparedRequest) -> None:
        """Add the key."""
        self._basic(request)

    def renew(self, exchange: Exchange) -> None:
        """A key does not expire."""


class TokenCredential:
    """Access tokens for the identity token (JWT) in a file, exchanged anew before they expire.

    The token is kept in W&B's credentials file, which its SDK shares. The JWT is read for each
    exchange: whoever issues it replaces the file.

    Source: SDK 0.31; facts in W&B's page on identity federation.
    """

    def __init__(self, base_url: str, token_file: Path, credentials_file: Path | None) -> None:
        self._base_url = base_url
        self._token_file = token_file
        self._store = credentials_file
        self._token: str | None = None
        self._expires_at = datetime.min.replace(tzinfo=UTC)
        self._identity_token = ""
        self._lock = threading.Lock()

    @property
    def secrets(self) -> tuple[str, ...]:
        """The token, and the JWT it was given for."""
        return tuple(text for text in (self._token, self._identity_token) if text)

    def sign(self, request: PreparedRequest) -> None:
        """Add the token."""
        request.headers["Authorization"] = f"Bearer {self._token}"

    def renew(self, exchange: Exchange) -> None:
        """Have a token that is valid for five minutes at least; one thread asks for all.

        Raises:
            AuthenticationFailed: the JWT cannot be read, or W&B does not take it (retry: never).
        """
        with self._lock:
            if self._token is None:
                self._load()
            if self._is_fresh():
                return
            self._identity_token = self._read_identity_token()
            given = exchange(self._identity_token)
            self._token = str(given["access_token"])
            self._expires_at = datetime.now(UTC) + timedelta(seconds=float(given["expires_in"]))
            self._save()

    def _is_fresh(self) -> bool:
        return self._token is not None and self._expires_at - datetime.now(UTC) > RENEW_BEFORE

    def _read_identity_token(self) -> str:
        try:
            token = self._token_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as exc:
            raise AuthenticationFailed(
                f"WANDB_IDENTITY_TOKEN_FILE={self._token_file} cannot be read "
                f"({type(exc).__name__}): it must hold the JWT of your identity provider."
            ) from exc
        if not token:
            raise AuthenticationFailed(f"The identity token file {self._token_file} is empty.")
        return token

    def _stored(self) -> dict[str, Any]:
        if self._store is None:
            return {}
        with suppress(OSError, ValueError, TypeError, KeyError):
            return dict(json.loads(self._store.read_text(encoding="utf-8"))["credentials"])
        return {}

    def _load(self) -> None:
        with suppress(KeyError, TypeError, ValueError):
            entry = self._stored()[self._base_url]
            expires_at = datetime.strptime(entry["expires_at"], _EXPIRES_AT).replace(tzinfo=UTC)
            self._token, self._expires_at = str(entry["access_token"]), expires_at

    def _save(self) -> None:
        if self._store is None:
            return
        entry = {"expires_at": self._expires_at.strftime(_EXPIRES_AT), "access_token": self._token}
        text = json.dumps({"credentials": {**self._stored(), self._base_url: entry}})
        part = self._store.with_name(f".{self._store.name}.{secrets.token_hex(4)}.part")
        try:
            self._store.parent.mkdir(parents=True, exist_ok=True)
            # 0600 from its first byte on: nobody else reads it at any moment.
            with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(text)
            os.replace(part, self._store)
        except OSError as exc:
            log.warning("the access token is not kept in %s: %s", self._store, exc.strerror)
