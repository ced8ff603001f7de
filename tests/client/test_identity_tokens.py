"""Identity tokens: exchanged, kept for other processes, renewed in time, and shown to nobody."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from wb_ops import Api, AuthenticationFailed, OutcomeUnknown, ServerUnavailable
from wb_ops.devserver import ApiKey, DevServer, Fault, Matcher, Responder
from wb_ops.settings import Settings

JWT = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJjaSJ9.c2lnbmF0dXJl"
EXCHANGE = Matcher(path="/oidc/token")


@pytest.fixture
def server() -> Iterator[DevServer]:
    with DevServer(identity_tokens={JWT: ApiKey("ci", "ann")}) as server:
        server.seed_run("ann", "trials", "r1", summary={"loss": 1}, files={"a.txt": "a"})
        yield server


@pytest.fixture
def kept(server: DevServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The environment of a job in a CI system; where the access token will be."""
    (tmp_path / "jwt").write_text(JWT + "\n")
    monkeypatch.setenv("WANDB_IDENTITY_TOKEN_FILE", str(tmp_path / "jwt"))
    monkeypatch.setenv("WANDB_CREDENTIALS_FILE", str(tmp_path / "deep" / "credentials.json"))
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    return tmp_path / "deep" / "credentials.json"


def exchanges(server: DevServer) -> int:
    return sum(one.path == "/oidc/token" for one in server.requests)


def keep(path: Path, url: str, token: str, expires_at: datetime, **others: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    entry = {"expires_at": f"{expires_at:%Y-%m-%d %H:%M:%S}", "access_token": token}
    path.write_text(json.dumps({"credentials": {url: entry, **others}}))


def test_a_token_need_not_be_kept(server: DevServer, tmp_path: Path):
    (tmp_path / "jwt").write_text(JWT)
    settings = Settings("", server.url, identity_token_file=tmp_path / "jwt")
    for _ in range(2):
        with Api(settings=settings) as api:
            assert api.run("ann/trials/r1").id == "r1"
    assert exchanges(server) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["jwt"]


def test_everything_is_signed_with_the_access_token(server: DevServer, kept: Path):
    with Api() as api:
        assert (api.viewer.username, api.default_entity) == ("ci", "ann")
        run = api.run("trials/r1")
        run.summary.update({"best": 2})
        assert run.file("a.txt").read() == b"a"
    sent = {one.authorization for one in server.requests if one.path != "/oidc/token"}
    token = json.loads(kept.read_text())["credentials"][server.url]["access_token"]
    assert sent == {f"Bearer {token}"}
    assert exchanges(server) == 1
    assert server.requests[0].authorization is None, "the exchange itself is not signed"


@pytest.mark.usefixtures("server")
def test_the_token_is_kept_for_the_owner_alone(kept: Path):
    with Api() as api:
        assert api.viewer.username == "ci"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert [path.name for path in kept.parent.iterdir()] == ["credentials.json"]


def test_another_process_takes_the_kept_token(server: DevServer, kept: Path):
    for _ in range(2):
        with Api() as api:
            assert api.viewer.username == "ci"
    assert exchanges(server) == 1


def test_threads_exchange_once(server: DevServer, kept: Path):
    with Api() as api, ThreadPoolExecutor(8) as pool:
        assert {run.id for run in pool.map(api.run, ["ann/trials/r1"] * 16)} == {"r1"}
    assert exchanges(server) == 1


def test_a_token_that_ends_soon_is_renewed_and_others_stay(server: DevServer, kept: Path):
    soon = datetime.now(UTC) + timedelta(minutes=4)
    other = {"https://other": {"expires_at": "2027-01-01 00:00:00", "access_token": "theirs"}}
    keep(kept, server.url, "old", soon, **other)
    with Api() as api:
        assert api.viewer.username == "ci"
    now = json.loads(kept.read_text())["credentials"]
    assert now["https://other"]["access_token"] == "theirs"
    assert now[server.url]["access_token"] != "old"
    expires_at = datetime.strptime(now[server.url]["expires_at"], "%Y-%m-%d %H:%M:%S")
    assert expires_at.replace(tzinfo=UTC) > datetime.now(UTC) + timedelta(minutes=50)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"credentials": {"x": 1}}', '{"credentials": 3}'])
def test_a_broken_file_is_written_anew(server: DevServer, kept: Path, text: str):
    kept.parent.mkdir()
    kept.write_text(text)
    with Api() as api:
        assert api.viewer.username == "ci"
    assert server.url in json.loads(kept.read_text())["credentials"]


@pytest.mark.usefixtures("server")
def test_a_folder_that_cannot_be_written_is_a_warning(kept: Path, caplog: pytest.LogCaptureFixture):
    kept.parent.write_text("a file where the folder should be")
    with Api() as api:
        assert api.viewer.username == "ci"
    assert "not kept" in caplog.text


def test_an_identity_that_is_not_taken_is_final(server: DevServer, kept: Path, tmp_path: Path):
    (tmp_path / "jwt").write_text("some.other.jwt")
    with Api() as api, pytest.raises(AuthenticationFailed, match="identity token") as caught:
        _ = api.viewer
    assert caught.value.attempts == exchanges(server) == 1
    assert "some.other.jwt" not in str(caught.value)


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_text(" \n")])
def test_a_file_without_a_token_is_named(
    server: DevServer, kept: Path, tmp_path: Path, spoil: Callable[[Path], Any]
):
    spoil(tmp_path / "jwt")
    with Api() as api, pytest.raises(AuthenticationFailed, match="jwt"):
        _ = api.viewer
    assert len(server.requests) == 0


def test_an_exchange_that_fails_once_is_tried_again(server: DevServer, kept: Path):
    server.faults.add(Fault(EXCHANGE, Responder.error(503)))
    server.faults.add(Fault(EXCHANGE, Responder(status=200, body='{"token": 1}')))
    with Api() as api:
        assert api.viewer.username == "ci"
    assert exchanges(server) == 3


@pytest.mark.parametrize("expires_in", ["Infinity", "NaN", "1e20", "-1", "9" * 400, '"inf"'])
def test_a_token_without_a_sane_end_is_none(server: DevServer, kept: Path, expires_in: str):
    body = f'{{"access_token": "token", "expires_in": {expires_in}}}'
    server.faults.add(Fault(EXCHANGE, Responder(status=200, body=body)))
    with Api() as api:
        assert api.viewer.username == "ci"
    assert exchanges(server) == 2, "it was asked for again, as after any answer without a token"


def test_a_write_is_not_sent_without_a_token(server: DevServer, kept: Path):
    """Nothing was sent, so nothing is unknown."""
    with Api() as api:
        run = api.run("ann/trials/r1")
    api.transport._credential._expires_at = datetime.now(UTC)
    server.faults.add(Fault(EXCHANGE, Responder.error(500), times=None))
    with pytest.raises(ServerUnavailable) as caught:
        run.summary.update({"best": 1})
    assert not isinstance(caught.value, OutcomeUnknown)


def test_no_log_shows_token_or_identity(
    server: DevServer, kept: Path, caplog: pytest.LogCaptureFixture
):
    echo = json.dumps({"errors": [{"message": f"{JWT} is slow"}]})
    server.faults.add(Fault(EXCHANGE, Responder(status=503, body=echo)))
    with caplog.at_level("DEBUG"), Api() as api:
        assert api.viewer.username == "ci"
    token = json.loads(kept.read_text())["credentials"][server.url]["access_token"]
    assert "is slow" in caplog.text
    assert JWT not in caplog.text + repr(api.transport.settings)
    assert token not in caplog.text


def test_a_key_and_an_identity_at_once_are_refused(
    server: DevServer, kept: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WANDB_API_KEY", server.api_key)
    with pytest.raises(AuthenticationFailed, match="both set"):
        Api()
    with Api(api_key=server.api_key) as api:
        assert api.viewer.username == "dev", "an argument comes before the environment"


@pytest.mark.slow
def test_the_real_sdk_shares_the_kept_token(
    server: DevServer, kept: Path, run_sdk: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
):
    """It reads the file that is written here, and exchanges in the same way."""
    with Api() as api:
        assert api.viewer.username == "ci"
    code = "result['state'] = wandb.Api().run('ann/trials/r1').state"
    names = ("WANDB_IDENTITY_TOKEN_FILE", "WANDB_CREDENTIALS_FILE")
    assert run_sdk(server, code, identity=names) == {"state": "finished"}
    assert exchanges(server) == 1
    kept.unlink()
    assert run_sdk(server, code, identity=names) == {"state": "finished"}
    assert exchanges(server) == 2
