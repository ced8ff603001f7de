"""Who receives the key, seen from the servers: W&B's origin alone, and always the explicit one."""

from __future__ import annotations

import base64
import pickle
import traceback
from pathlib import Path

import pytest
import requests

from wb_ops import Api, AuthenticationFailed, CommError
from wb_ops.devserver import DevServer, Fault, Matcher, Responder
from wb_ops.settings import Settings

EXPLICIT = "explicit" * 5
FOREIGN = "netrcpassword" * 4


@pytest.fixture
def hostile_netrc(server: DevServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = "127.0.0.1"
    path = tmp_path / "netrc"
    path.write_text(
        f"machine {host}\n  login user\n  password {FOREIGN}\n"
        f"machine {server.url.removeprefix('http://')}\n  login user\n  password {FOREIGN}\n"
        f"default\n  login user\n  password {FOREIGN}\n"
    )
    monkeypatch.setenv("NETRC", str(path))


def basic(key: str) -> str:
    return "Basic " + base64.b64encode(f"api:{key}".encode()).decode()


@pytest.mark.usefixtures("hostile_netrc")
def test_an_explicit_key_wins_over_netrc_and_storage_gets_none(server: DevServer, api: Api):
    server.seed_run("ann", "trials", "r1", history=[{"_step": 0, "loss": 1.0}])
    assert api.run("ann/trials/r1").history_table().num_rows == 1
    sent = {(one.origin, one.authorization) for one in server.requests}
    assert sent == {("api", basic(server.api_key)), ("storage", None)}


@pytest.mark.usefixtures("hostile_netrc")
def test_requests_alone_would_have_leaked_it(server: DevServer):
    """The trap is real: the same netrc, without our auth, reaches the storage origin."""
    requests.get(server.storage_url + "/x", timeout=5)
    assert server.requests[-1].has_authorization


def test_a_wrong_key_is_an_authentication_error_and_is_not_tried_again(server: DevServer):
    server.seed_run("ann", "trials", "r1")
    with Api({"base_url": server.url}, api_key=EXPLICIT) as api:
        with pytest.raises(AuthenticationFailed) as caught:
            list(api.runs("ann/trials"))
        assert caught.value.attempts == 1
        with pytest.raises(AuthenticationFailed, match="does not know"):
            _ = api.viewer
    assert len(server.requests) == 2


def test_the_key_is_in_no_text_of_an_error(server: DevServer):
    echo = {"errors": [{"message": f"key {EXPLICIT} is not allowed"}]}
    server.faults.add(
        Fault(Matcher(operation="Runs"), Responder(status=403, body=str(echo).replace("'", '"')))
    )
    with Api({"base_url": server.url}, api_key=EXPLICIT) as api:
        with pytest.raises(CommError) as caught:
            list(api.runs("ann/trials"))
        shown = repr(api) + repr(api.transport) + repr(api.transport.settings)
    error = caught.value
    texts = [
        str(error),
        repr(error),
        repr(error.facts),
        shown,
        pickle.dumps(error).decode("latin1"),
    ]
    texts += traceback.format_exception(error)
    assert "not allowed" in str(error)
    assert not [text for text in texts if EXPLICIT in text]


def test_a_lost_connection_keeps_neither_request_nor_signature(server: DevServer):
    server.seed_run("ann", "trials", "r1", history=[{"_step": 0, "loss": 1.0}])
    server.faults.add(Fault(Matcher(origin="storage"), Responder.reset(), times=None))
    settings = Settings(api_key=server.api_key, base_url=server.url, max_attempts=1)
    with Api(settings=settings) as api, pytest.raises(CommError) as caught:
        api.run("ann/trials/r1").history_table()
    assert caught.value.exc is not None
    assert getattr(caught.value.exc, "request", None) is None
    signature = server.requests[-1].query_string
    assert len(signature) > 20
    assert signature not in "".join(traceback.format_exception(caught.value))
