"""Argument, environment, netrc, settings file: in this order, and the key is never shown."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from wb_ops import AuthenticationFailed, InvalidRequest
from wb_ops.settings import Settings, normalize_base_url, project_url, resolve_settings

URL = "http://127.0.0.1:8080"
KEYS = {name: name[0] * 40 for name in ("argument", "environment", "netrc", "file")}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / ".netrc").write_text(
        f"machine 127.0.0.1:8080\n  login user\n  password {KEYS['netrc']}\n"
    )
    config = tmp_path / ".config" / "wandb"
    config.mkdir(parents=True)
    (config / "settings").write_text(
        f"[default]\nbase_url = {URL}\napi_key = {KEYS['file']}\nentity = from-file\n"
    )
    return tmp_path


def key(home: Path, argument: str | None = None, **environ: str) -> str:
    env = {"HOME": str(home), "WANDB_DIR": str(home), **environ}
    return resolve_settings(api_key=argument, base_url=URL, environ=env).api_key


def test_the_argument_wins(home: Path):
    assert key(home, KEYS["argument"], WANDB_API_KEY=KEYS["environment"]) == KEYS["argument"]


def test_the_environment_wins_over_netrc(home: Path):
    assert key(home, WANDB_API_KEY=KEYS["environment"]) == KEYS["environment"]


def test_netrc_wins_over_the_settings_file(home: Path):
    assert key(home) == KEYS["netrc"]


def test_the_settings_file_is_the_last_resort(home: Path):
    (home / ".netrc").unlink()
    assert key(home) == KEYS["file"]


def test_the_settings_files_key_goes_to_its_own_server_only(home: Path):
    (home / ".netrc").unlink()
    with pytest.raises(AuthenticationFailed, match="WANDB_API_KEY"):
        resolve_settings(base_url="https://wandb.example.com", environ={"HOME": str(home)})


def test_the_port_is_part_of_the_netrc_machine(home: Path):
    (home / ".config" / "wandb" / "settings").unlink()
    with pytest.raises(AuthenticationFailed):
        resolve_settings(base_url="http://127.0.0.1:9", environ={"HOME": str(home)})


@pytest.mark.parametrize(
    "bad", ["short", "x" * 39, "local-" + "x" * 39, "x" * 39 + "!", " " + "x" * 40]
)
def test_a_key_of_the_wrong_form_is_refused_and_not_quoted(bad: str, tmp_path: Path):
    with pytest.raises(AuthenticationFailed) as caught:
        resolve_settings(api_key=bad, base_url=URL, environ={"HOME": str(tmp_path)})
    assert bad.strip() not in str(caught.value)


@pytest.mark.parametrize("good", ["x" * 40, "local-" + "x" * 40, "wandb_v1_" + "x" * 77, "a.b.c"])
def test_every_known_form_of_key_is_taken(good: str, tmp_path: Path):
    settings = resolve_settings(api_key=good, base_url=URL, environ={"HOME": str(tmp_path)})
    assert settings.api_key == good


def test_the_key_is_in_no_repr_and_no_pickle():
    settings = Settings(api_key="s" * 40, base_url=URL)
    assert "s" * 40 not in repr(settings)
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(settings)


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("https://api.wandb.ai/", "https://api.wandb.ai"),
        ("http://localhost:8080", "http://localhost:8080"),
        ("https://wandb.example.com/prefix/", "https://wandb.example.com/prefix"),
    ],
)
def test_base_urls_are_normalized(url: str, normal: str):
    assert normalize_base_url(url) == normal


@pytest.mark.parametrize(
    "url", ["wandb.ai", "ftp://x", "https://wandb.ai", "http://api.wandb.ai", "https://u:p@host"]
)
def test_a_base_url_that_is_none_is_refused(url: str):
    with pytest.raises(InvalidRequest):
        normalize_base_url(url)


@pytest.mark.parametrize("url", ["http://[x", "http://[x]/", "http://ann:secret", "http://x:99999"])
def test_what_cannot_be_read_as_a_url_is_not_quoted(url: str):
    with pytest.raises(InvalidRequest, match="base_url cannot be read") as raised:
        normalize_base_url(url)
    assert raised.value.__cause__ is None
    assert "secret" not in str(raised.value)


def test_clear_text_to_another_machine_warns():
    with pytest.warns(UserWarning, match="clear text"):
        normalize_base_url("http://wandb.example.com")


@pytest.mark.parametrize(
    ("base_url", "page"),
    [
        ("https://api.wandb.ai", "https://wandb.ai/my%20team/p"),
        ("https://api.forge.coreweave.com", "https://forge.coreweave.com/wandb/my%20team/p"),
        ("https://api.example.com", "https://app.example.com/my%20team/p"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080/my%20team/p"),
    ],
)
def test_the_page_of_a_project(base_url: str, page: str):
    assert project_url(base_url, "my team", "p") == page
