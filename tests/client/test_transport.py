"""Faults on the wire: the class, the advice, and what is tried again in process."""

from __future__ import annotations

import base64
import importlib
import json
import pkgutil
import socket
import ssl
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import ModuleType

import pytest
import requests
import urllib3
import urllib3.util.ssl_match_hostname

from wb_ops import (
    Api,
    CommError,
    ConnectionFailed,
    InvalidRequest,
    MalformedResponse,
    NotFound,
    OutcomeUnknown,
    PermissionDenied,
    RateLimited,
    RequestTimeout,
    ServerUnavailable,
)
from wb_ops.client.failures import mapped
from wb_ops.client.pacing import Quota, RequestBudget, asked_wait_s, forget_budgets
from wb_ops.client.responses import Response, read_graphql
from wb_ops.client.source import RunSource
from wb_ops.client.transport import Transport
from wb_ops.devserver import DevServer, Fault, Matcher, Responder
from wb_ops.settings import Settings

RUNS = Matcher(operation="Runs")
WRITE = Matcher(operation="UpsertBucket")


@pytest.fixture
def impatient(server: DevServer) -> Api:
    """Tries three times, and waits up to 2 s for a limit."""
    server.seed_run("ann", "trials", "r1", summary={"loss": 1})
    settings = Settings(api_key=server.api_key, base_url=server.url, timeout_s=1.0)
    return Api(settings=replace(settings, max_attempts=3, max_wait_s=2.0))


def listing(api: Api) -> list[str]:
    return [run.id for run in api.runs("ann/trials")]


def test_a_limit_is_waited_for_exactly(server: DevServer, impatient: Api):
    server.faults.add(Fault(RUNS, Responder.rate_limited(1)))
    assert listing(impatient) == ["r1"]
    refused, answered = [one.time for one in server.requests]
    assert answered - refused >= 1.0


def test_a_longer_wait_than_allowed_is_passed_up_at_once(server: DevServer, impatient: Api):
    server.faults.add(Fault(RUNS, Responder.rate_limited(30), times=None))
    with pytest.raises(RateLimited) as caught:
        listing(impatient)
    assert (caught.value.retry_after_s, caught.value.http_status) == (30, 429)
    with pytest.raises(RateLimited):
        listing(impatient)
    assert len(server.requests) == 1, "nobody asks again before the time has passed"


def test_a_limit_for_ever_is_bounded(server: DevServer, impatient: Api):
    server.faults.add(Fault(RUNS, Responder.rate_limited(0.1), times=None))
    with pytest.raises(RateLimited) as caught:
        listing(impatient)
    assert caught.value.attempts == 3
    assert len(server.requests) == 3


def test_a_limit_that_is_forgotten_holds_no_new_client_back(server: DevServer, impatient: Api):
    """A server of a later test may have the same port, and the same key."""
    server.faults.add(Fault(RUNS, Responder.rate_limited(300)))
    with pytest.raises(RateLimited):
        listing(impatient)
    forget_budgets()
    with pytest.raises(RateLimited):
        listing(impatient)
    with Api(settings=impatient.transport.settings) as fresh:
        assert listing(fresh) == ["r1"]


def test_a_spent_budget_holds_the_next_request_back(server: DevServer, impatient: Api):
    spent = {"RateLimit-Remaining": "0", "RateLimit-Reset": "0.5"}
    server.faults.add(Fault(RUNS, Responder(status=None, headers=spent)))
    assert listing(impatient) == listing(impatient) == ["r1"]
    first, second = [one.time for one in server.requests]
    assert second - first >= 0.5


def test_what_is_left_of_a_limit_is_known_until_it_is_renewed():
    now = [0.0]
    budget = RequestBudget(lambda: now[0])
    assert budget.quota is None
    budget.observe(200, {"RateLimit-Remaining": "250", "RateLimit-Reset": "9"})
    budget.observe(200, {})
    now[0] = 4.0
    assert budget.quota == Quota(0.25, 5.0)
    budget.observe(
        200, {"RateLimit-Remaining": "5", "RateLimit-Limit": "50", "RateLimit-Reset": "2"}
    )
    assert budget.quota == Quota(0.1, 2.0)
    now[0] = 6.0
    assert budget.quota is None


def test_the_time_of_requests_holds_no_wait(server: DevServer):
    """By a clock that stands still but for sleeps."""
    server.seed_run("ann", "trials", "r1")
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    settings = Settings(api_key=server.api_key, base_url=server.url)
    transport = Transport(settings, sleep, lambda: now[0])
    server.faults.add(Fault(RUNS, Responder.rate_limited(1)))
    nodes = RunSource(transport, "ann", "trials").iter_nodes(None)
    assert [node["name"] for node in nodes] == ["r1"]
    assert (transport.traffic.waited_s, transport.traffic.busy_s) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("responder", "cls"),
    [
        (Responder.error(502), ServerUnavailable),
        (Responder.error(503), ServerUnavailable),
        (Responder.error(500), ServerUnavailable),
        (Responder.error(408), RequestTimeout),
        (Responder.reset(), ConnectionFailed),
        (Responder.cut_body(), MalformedResponse),
        (Responder.html(), MalformedResponse),
    ],
    ids=["502", "503", "500", "408", "reset", "cut", "html"],
)
class TestTransient:
    def test_once_is_survived(
        self, server: DevServer, impatient: Api, responder: Responder, cls: type[CommError]
    ):
        server.faults.add(Fault(RUNS, responder))
        assert listing(impatient) == ["r1"]

    def test_for_ever_is_our_error(
        self, server: DevServer, impatient: Api, responder: Responder, cls: type[CommError]
    ):
        server.faults.add(Fault(RUNS, responder, times=None))
        with pytest.raises(cls) as caught:
            listing(impatient)
        assert caught.value.attempts == 3
        assert caught.value.advice.kind == "backoff"


def test_a_list_that_failed_is_not_taken_for_a_short_one(server: DevServer, impatient: Api):
    runs = impatient.runs("ann/trials")
    server.faults.add(Fault(RUNS, Responder.error(502), times=3))
    with pytest.raises(ServerUnavailable):
        len(runs)
    assert [run.id for run in runs] == ["r1"]


@pytest.mark.parametrize(
    ("status", "cls"),
    [(400, InvalidRequest), (403, PermissionDenied), (404, NotFound), (422, InvalidRequest)],
)
def test_refusals_are_not_tried_again(
    server: DevServer, impatient: Api, status: int, cls: type[CommError]
):
    server.faults.add(Fault(RUNS, Responder.error(status, "no")))
    with pytest.raises(cls):
        listing(impatient)
    assert len(server.requests) == 1


def test_a_missing_project_names_itself(impatient: Api):
    with pytest.raises(NotFound, match="ann/nothing") as caught:
        list(impatient.runs("ann/nothing"))
    assert caught.value.facts["path"] == "ann/nothing"


def test_a_slow_answer_is_a_timeout(server: DevServer, impatient: Api):
    server.faults.add(Fault(Matcher(operation="Run"), Responder.slow(3.0)))
    once = replace(impatient.transport.settings, max_attempts=1)
    with pytest.raises(RequestTimeout):
        Api(settings=once).run("ann/trials/r1")


def test_a_write_whose_answer_is_lost_is_settled_by_reading(server: DevServer, impatient: Api):
    server.faults.add(Fault(WRITE, Responder.lost_answer()))
    run = impatient.run("ann/trials/r1")
    run.summary.update({"best": 2})
    assert dict(run.summary) == {"loss": 1, "best": 2}
    assert server.requests.operations().count("UpsertBucket") == 1


def test_a_write_that_never_arrived_is_said_so(server: DevServer, impatient: Api):
    server.faults.add(Fault(WRITE, Responder.reset()))
    with pytest.raises(OutcomeUnknown, match="best"):
        impatient.run("ann/trials/r1").summary.update({"best": 2})
    assert server.requests.operations().count("UpsertBucket") == 1


def test_a_time_of_day_is_read_as_one():
    seconds = asked_wait_s(429, {"RateLimit-Reset": str(time.time() + 60)})
    assert seconds is not None
    assert 50 < seconds <= 60


def test_a_body_that_drips_is_no_answer():
    """One byte in half a second would keep a request for ever."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        drip = threading.Thread(target=dripping, args=(listener,), daemon=True)
        drip.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        settings = Settings(api_key="k" * 40, base_url=url, timeout_s=1.0, max_attempts=1)
        with pytest.raises(RequestTimeout):
            _ = Api(settings=settings).viewer
        drip.join(10)


def dripping(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(20):
            try:
                connection.sendall(b" ")
            except OSError:
                return
            time.sleep(0.2)


@pytest.mark.parametrize(
    ("reason", "cls"),
    [
        (ssl.SSLCertVerificationError("self-signed"), InvalidRequest),
        (PermissionError(13, "Permission denied"), InvalidRequest),
        (ssl.SSLEOFError("peer went away"), ConnectionFailed),
    ],
)
def test_only_what_must_be_mended_first_is_final(reason: OSError, cls: type):
    inner = urllib3.exceptions.SSLError(reason)
    raised = requests.exceptions.SSLError(urllib3.exceptions.MaxRetryError(None, "/", inner))
    with pytest.raises(cls), mapped({"operation": "Runs"}, is_write=False):
        raise raised


@pytest.mark.parametrize(
    ("message", "cls"),
    [
        ("rpc error: code = Unavailable desc = connection closed", ServerUnavailable),
        ("rpc error: code = Unknown desc = tcp closed", ServerUnavailable),
        ("rpc error: code = Canceled desc = gone", ServerUnavailable),
        ("rpc error: code = InvalidArgument desc = filter", InvalidRequest),
        ("rpc error: code = NotFound desc = run", NotFound),
        ("rpc error: code = PermissionDenied desc = run", PermissionDenied),
        ("unknown: dial tcp 10.0.0.1:3306: connect: connection refused", ServerUnavailable),
        ("read tcp 10.0.0.1:3306: read: connection reset by peer", ServerUnavailable),
        ("Error 1213: Deadlock found when trying to get lock", ServerUnavailable),
        ("invalid filter: unknown operator deadlock", InvalidRequest),
    ],
)
def test_what_services_say_of_each_other_is_no_refusal(message: str, cls: type[CommError]):
    response = Response(200, {}, json.dumps({"errors": [{"message": message}]}).encode())
    with pytest.raises(CommError) as caught:
        read_graphql(response, {"operation": "Runs"}, is_write=False)
    assert type(caught.value) is cls


def test_a_refused_filter_is_not_taken_for_a_timeout(server: DevServer, impatient: Api):
    text = "invalid filter on config.timeout: unknown operator $foo"
    body = json.dumps({"data": None, "errors": [{"message": text}]})
    server.faults.add(Fault(RUNS, Responder(status=200, body=body), times=None))
    with pytest.raises(InvalidRequest, match="unknown operator"):
        listing(impatient)
    assert len(server.requests) == 1


def test_a_proxy_of_the_environment_is_not_for_this_machine(
    server: DevServer, impatient: Api, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    assert listing(impatient) == ["r1"]


def test_no_log_shows_a_signature(
    server: DevServer, impatient: Api, caplog: pytest.LogCaptureFixture
):
    server.seed_run("ann", "trials", "r2", history=[{"_step": 0, "loss": 1.0}])
    with caplog.at_level("DEBUG"):
        impatient.run("ann/trials/r2").history_table()
    signature = server.requests[-1].query_string
    assert len(signature) > 20
    assert "GET" in caplog.text
    assert signature not in caplog.text


def test_a_body_that_echoes_the_header_shows_no_key(server: DevServer, impatient: Api):
    secret = base64.b64encode(f"api:{server.api_key}".encode()).decode()
    server.faults.add(Fault(RUNS, Responder.error(403, f"Basic {secret} may not")))
    with pytest.raises(PermissionDenied, match="may not") as caught:
        listing(impatient)
    assert secret not in str(caught.value)


def test_nothing_listens(tmp_path):
    settings = Settings(api_key="k" * 40, base_url="http://127.0.0.1:1", max_attempts=1)
    with pytest.raises(ConnectionFailed):
        _ = Api(settings=settings).viewer


def exceptions_of(package: ModuleType) -> set[type[Exception]]:
    """Every exception that a module of the package defines, wherever that is."""
    found: set[type[Exception]] = set()
    for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if info.name in OPTIONAL:
            continue
        values = vars(importlib.import_module(info.name)).values()
        found |= {cls for cls in values if isinstance(cls, type) and issubclass(cls, Exception)}
    own = {cls for cls in found if cls.__module__.startswith(f"{package.__name__}.")}
    return {cls for cls in own if not issubclass(cls, Warning)} - NEVER_RAISED_HERE


# These modules want packages that are not installed, and raise through the others.
OPTIONAL = {
    "urllib3.contrib.emscripten",
    "urllib3.contrib.emscripten.connection",
    "urllib3.contrib.emscripten.fetch",
    "urllib3.contrib.emscripten.request",
    "urllib3.contrib.emscripten.response",
    "urllib3.contrib.pyopenssl",
    "urllib3.contrib.socks",
    "urllib3.http2.connection",
}
# Two cookies of one name in one jar; urllib3 turns the other into its own SSLError.
NEVER_RAISED_HERE = {
    requests.cookies.CookieConflictError,
    urllib3.util.ssl_match_hostname.CertificateError,
}
FOREIGN = sorted(exceptions_of(requests) | exceptions_of(urllib3), key=lambda cls: str(cls))


@pytest.mark.parametrize("cls", FOREIGN, ids=lambda cls: f"{cls.__module__}.{cls.__name__}")
def test_every_exception_of_the_http_libraries_is_mapped(cls: type[Exception]):
    assert len(FOREIGN) > 50
    foreign = cls.__new__(cls)
    with pytest.raises(CommError), mapped({"operation": "Runs"}, is_write=False):
        raise foreign


@pytest.mark.parametrize(
    ("status", "headers", "seconds"),
    [
        (429, {"Retry-After": "12"}, 12),
        (429, {"Retry-After": "1.5"}, 1.5),
        (429, {"RateLimit-Reset": "9"}, 9),
        (429, {"RateLimit-Reset": "9e9"}, None),
        (429, {"Retry-After": "9e9", "RateLimit-Reset": "9"}, 9),
        (200, {"RateLimit-Remaining": "0", "RateLimit-Reset": "9"}, 9),
        (200, {"RateLimit-Remaining": "10", "RateLimit-Reset": "9"}, None),
        (429, {"Retry-After": "-1"}, None),
        (429, {"Retry-After": "soon"}, None),
        (500, {"Retry-After": "12"}, None),
        (429, {"Retry-After": f"Fri, 31 Dec {'9' * 20} 23:59:59 GMT"}, None),
        (429, {"Retry-After": f"Fri, 31 Dec 2027 {'9' * 20}:59:59 GMT"}, None),
        (429, {"Retry-After": f"Fri, 31 Dec 2027 23:59:59 +{'9' * 20}"}, None),
    ],
)
def test_what_an_answer_asks_to_wait(status: int, headers: dict[str, str], seconds: float | None):
    assert asked_wait_s(status, headers) == seconds


def test_a_wait_may_be_a_date():
    soon = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    seconds = asked_wait_s(429, {"Retry-After": soon})
    assert seconds is not None
    assert 3500 < seconds <= 3600
    assert asked_wait_s(429, {"Retry-After": "Fri, 31 Dec 2999 23:59:59 GMT"}) is None
    assert asked_wait_s(429, {"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT"}) == 0
