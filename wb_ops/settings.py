"""Where W&B is and who asks: argument > environment > netrc > settings file.

In:  arguments, WANDB_* variables, netrc, W&B's settings files. Out: Settings.
May import: errors. No network. The key is never printed.
"""

from __future__ import annotations

import configparser
import ipaddress
import netrc
import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit

from wb_ops.errors import AuthenticationFailed, InvalidRequest

DEFAULT_BASE_URL = "https://api.wandb.ai"
# CoreWeave Forge is the same service under a newer host; its SDK falls back to the older entry.
FORGE_BASE_URL = "https://api.forge.coreweave.com"
MIN_KEY_LENGTH = 40

_JWT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+")


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a client needs to know before its first request.

    Attributes:
        api_key: never in a repr, never in a pickle.
        base_url: without a trailing slash; self-hosted servers may have a path.
        entity, project: defaults for paths that do not name them.
        timeout_s: seconds without a byte before one request is given up.
        max_wait_s: the longest wait that is slept here; a longer one is raised, so that an
            orchestrator can wait without holding a worker.
        max_attempts, max_total_s: bounds of the retry loop of one request, and of each answer in
            it: a body that has not ended after `max_total_s` is given up, a file unless it comes
            with 64 KiB/s.
        max_in_flight: requests at the same time, of all threads that use this key.
        identity_token_file: a JWT in a file, whose access tokens sign instead of an API key.
        credentials_file: where those access tokens are kept between processes.
        max_body_bytes: the largest answer that is read, decompressed. A file that goes to the
            disk may be larger where the server announces its size.
    """

    api_key: str = field(repr=False)
    base_url: str = DEFAULT_BASE_URL
    entity: str | None = None
    project: str | None = None
    timeout_s: float = 30.0
    max_wait_s: float = 120.0
    max_attempts: int = 6
    max_total_s: float = 300.0
    max_in_flight: int = 10
    identity_token_file: Path | None = None
    credentials_file: Path | None = None
    max_body_bytes: int = 2 * 1024**3

    @property
    def identity(self) -> str:
        """Who asks, as one text that is a secret: what shares a request limit."""
        return self.api_key or str(self.identity_token_file)

    def __reduce__(self) -> str:
        raise TypeError("Settings hold an API key and are not pickled; resolve them where they run")


def resolve_settings(
    *,
    api_key: str | None = None,
    base_url: str | None = None,
    entity: str | None = None,
    project: str | None = None,
    timeout_s: float | None = None,
    max_wait_s: float = 120.0,
    environ: Mapping[str, str] = os.environ,
) -> Settings:
    """Find base URL, key, entity and project as the W&B SDK finds them.

    Raises:
        AuthenticationFailed: no key anywhere, or one of the wrong form (retry: never).
        InvalidRequest: the base URL is not one (retry: never).

    Source: SDK 0.31, `wandb_setup` and `apikey`: argument, environment, netrc, settings file.
    """
    stored = _read_settings_files(environ)
    url = normalize_base_url(
        base_url or environ.get("WANDB_BASE_URL") or stored.get("base_url") or DEFAULT_BASE_URL
    )
    identity = None if api_key else _identity_files(environ)
    key = ""
    if not identity:
        found = api_key or environ.get("WANDB_API_KEY") or _stored_key(url, stored, environ)
        key = check_key(found, url)
    return Settings(
        api_key=key,
        identity_token_file=identity[0] if identity else None,
        credentials_file=identity[1] if identity else None,
        base_url=url,
        entity=entity or environ.get("WANDB_ENTITY") or stored.get("entity"),
        project=project or environ.get("WANDB_PROJECT") or stored.get("project"),
        timeout_s=timeout_s or _timeout_s(environ.get("WANDB_HTTP_TIMEOUT")),
        max_wait_s=max_wait_s,
    )


def _identity_files(environ: Mapping[str, str]) -> tuple[Path, Path] | None:
    """The file of the identity token and that of its access tokens, where they are set."""
    token_file = environ.get("WANDB_IDENTITY_TOKEN_FILE")
    if not token_file:
        return None
    if environ.get("WANDB_API_KEY"):
        raise AuthenticationFailed(
            "WANDB_API_KEY and WANDB_IDENTITY_TOKEN_FILE are both set: unset one of them."
        )
    kept = environ.get("WANDB_CREDENTIALS_FILE")
    usual = _home(environ) / ".config" / "wandb" / "credentials.json"
    return Path(token_file), Path(kept) if kept else usual


def _timeout_s(text: str | None) -> float:
    try:
        seconds = float(text) if text else 30.0
    except ValueError as exc:
        raise InvalidRequest(f"WANDB_HTTP_TIMEOUT={text!r}: give seconds, such as 30.") from exc
    if seconds <= 0:
        raise InvalidRequest(f"WANDB_HTTP_TIMEOUT={text!r}: give more than 0 seconds.")
    return seconds


def check_key(key: str | None, base_url: str) -> str:
    """Return `key` if it has the form of an API key; its value is never part of an error."""
    if not key:
        raise AuthenticationFailed(
            f"No API key for {base_url}: pass api_key, set WANDB_API_KEY, or run `wandb login`."
        )
    if _JWT.fullmatch(key):
        return key
    secret = key.split("-", 1)[-1]
    if len(secret) < MIN_KEY_LENGTH:
        raise AuthenticationFailed(
            f"The API key has {len(secret)} characters, W&B's have {MIN_KEY_LENGTH} or more: "
            "copy it whole from the W&B settings page."
        )
    if not re.fullmatch(r"[\w-]+", secret, flags=re.ASCII):
        raise AuthenticationFailed(
            "The API key has characters other than letters, digits, '_' and '-': "
            "copy it again, without quotes or spaces."
        )
    return key


def normalize_base_url(url: str) -> str:
    """Return the API address without trailing slash; warn where a key would travel in clear."""
    url = url.strip().rstrip("/")
    try:
        parts = urlsplit(url)
        # Only asked for is it checked.
        _ = parts.port
    except ValueError:
        # Nothing of it, nor of the error that quotes it: what cannot be read may hold a password.
        raise InvalidRequest(
            f"base_url cannot be read as a URL, such as {DEFAULT_BASE_URL}: look at its brackets "
            "and its port."
        ) from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidRequest(f"base_url {url!r} is not an http(s) URL, such as {DEFAULT_BASE_URL}.")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise InvalidRequest("base_url may have a host, a port and a path, and nothing else.")
    if url == "https://forge.coreweave.com/api/wandb":
        return FORGE_BASE_URL
    if re.search(r"(^|\.)wandb\.ai$", parts.hostname):
        _check_hosted(url, parts.scheme, parts.hostname)
    elif parts.scheme == "http" and not is_loopback(parts.hostname):
        warnings.warn(f"{url} is not https: the API key travels in clear text.", stacklevel=3)
    return url


def project_url(base_url: str, entity: str, project: str) -> str:
    """The project's page in the browser, on the server whose API is at `base_url`.

    Source: SDK 0.31 `app_url`: hosted servers have the API on a host of its own, others do not.
    """
    if base_url == FORGE_BASE_URL:
        app = "https://forge.coreweave.com/wandb"
    elif "://api.wandb." in base_url:
        app = base_url.replace("://api.wandb.", "://wandb.", 1)
    else:
        app = base_url.replace("://api.", "://app.", 1)
    return f"{app}/{quote(entity, safe='')}/{quote(project, safe='')}"


def _check_hosted(url: str, scheme: str, host: str) -> None:
    if "api." not in host or scheme != "https":
        raise InvalidRequest(f"base_url {url!r} is not W&B's API: use {DEFAULT_BASE_URL}.")


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _stored_key(base_url: str, stored: Mapping[str, str], environ: Mapping[str, str]) -> str | None:
    key = _netrc_key(urlsplit(base_url).netloc, environ)
    if key is None and base_url == FORGE_BASE_URL:
        key = _netrc_key(urlsplit(DEFAULT_BASE_URL).netloc, environ)
    if key is not None:
        return key
    own_url = stored.get("base_url", DEFAULT_BASE_URL).rstrip("/")
    return stored.get("api_key") if own_url == base_url else None


def _netrc_key(netloc: str, environ: Mapping[str, str]) -> str | None:
    path = _netrc_path(environ)
    if path is None:
        return None
    try:
        entry = netrc.netrc(path).authenticators(netloc)
    except (OSError, netrc.NetrcParseError) as exc:
        # Only the place: the text of a parse error may quote the password.
        warnings.warn(f"{path} cannot be read as a netrc file: {type(exc).__name__}", stacklevel=5)
        return None
    return entry[2] or None if entry else None


def _netrc_path(environ: Mapping[str, str]) -> Path | None:
    if named := environ.get("NETRC"):
        candidates = [Path(named).expanduser()]
    else:
        candidates = [_home(environ) / ".netrc", _home(environ) / "_netrc"]
    return next((path for path in candidates if path.is_file()), None)


def _read_settings_files(environ: Mapping[str, str]) -> dict[str, str]:
    parser = configparser.ConfigParser(interpolation=None)
    try:
        local = Path(environ.get("WANDB_DIR") or ".") / "wandb" / "settings"
        parser.read([_config_dir(environ) / "settings", local])
    except (OSError, configparser.Error, UnicodeDecodeError) as exc:
        warnings.warn(f"W&B's settings file is unreadable: {type(exc).__name__}", stacklevel=3)
        return {}
    return dict(parser["default"]) if parser.has_section("default") else {}


def _config_dir(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("WANDB_CONFIG_DIR") or _home(environ) / ".config" / "wandb")


def _home(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("HOME") or Path.home())
