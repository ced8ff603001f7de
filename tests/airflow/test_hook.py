"""From a connection to a client."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from wb_ops.errors import AuthenticationFailed, InvalidRequest

KEY = "canary0" * 6
pytestmark = pytest.mark.usefixtures("airflow_home")


def settings_of(conn_id: str = "wandb_default") -> Any:
    from wb_ops.airflow import WandbHook

    with WandbHook(conn_id).get_conn() as api:
        return api.transport.settings


def test_the_connection_says_it_all(set_connection: Callable[..., None], server: Any) -> None:
    """Password, host and the form's fields."""
    set_connection(extra={"project": "demo", "timeout": "7", "max_wait_s": None})
    settings = settings_of()
    assert (settings.api_key, settings.base_url) == (KEY, server.url)
    assert (settings.entity, settings.project) == ("ann", "demo")
    assert (settings.timeout_s, settings.max_wait_s) == (7.0, 5.0)


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        ({"host": None}, "https://api.wandb.ai"),
        ({"host": "wandb.example.com"}, "https://wandb.example.com"),
        ({"host": "localhost", "schema": "http", "port": 8080}, "http://localhost:8080"),
        ({"host": "https://example.com/wandb/"}, "https://example.com/wandb"),
        ({"host": "https://example.com/wandb", "port": 8443}, "https://example.com:8443/wandb"),
        ({"host": "http://localhost:8080", "port": 9090}, "http://localhost:8080"),
        ({"host": "https://api.wandb.ai", "port": 443}, "https://api.wandb.ai"),
        ({"host": "https://api.wandb.ai", "port": 0}, "https://api.wandb.ai"),
        ({"host": "http://[::1]", "port": 8080}, "http://[::1]:8080"),
    ],
)
def test_the_host_may_be_a_url_or_a_name(
    set_connection: Callable[..., None], fields: dict[str, Any], url: str
) -> None:
    """The URI form of a connection has no room for a scheme in its host."""
    set_connection(**fields)
    assert settings_of().base_url == url


def test_without_a_password_the_key_is_found_as_the_sdk_finds_it(
    set_connection: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """WANDB_API_KEY of the worker."""
    set_connection(password=None)
    with pytest.raises(AuthenticationFailed):
        settings_of()
    monkeypatch.setenv("WANDB_API_KEY", "e" * 40)
    assert settings_of().api_key == "e" * 40


@pytest.mark.parametrize(
    "fields",
    [
        {"host": "ftp://x"},
        {"host": "https://[bad"},
        {"host": "http://x:port"},
        {"extra": {"timeout": "soon"}},
        {"extra": {"max_wait_s": []}},
    ],
)
def test_a_wrong_field_is_refused(
    set_connection: Callable[..., None], fields: dict[str, Any]
) -> None:
    """No later try can help."""
    set_connection(**fields)
    with pytest.raises(InvalidRequest):
        settings_of()


def test_a_good_connection_tests_well(connection: None, server: Any) -> None:
    """The button says whose key it is."""
    from wb_ops.airflow import WandbHook

    assert WandbHook().test_connection() == (True, f"{server.url} knows this key as ann.")


@pytest.mark.parametrize("fields", [{"password": "w" * 40}, {"host": "http://127.0.0.1:1"}])
def test_a_bad_connection_says_why(
    set_connection: Callable[..., None], fields: dict[str, Any]
) -> None:
    """A short answer without the key, after one attempt."""
    from wb_ops.airflow import WandbHook

    set_connection(**fields)
    works, message = WandbHook().test_connection()
    assert not works
    assert message
    assert "w" * 40 not in message
    assert KEY not in message


def test_airflow_finds_the_hook_by_its_type(connection: None) -> None:
    """The web server's Test button and Connection.get_hook() go this way."""
    from airflow.sdk import BaseHook

    from wb_ops.airflow import WandbHook

    assert isinstance(BaseHook.get_hook("wandb_default"), WandbHook)
