"""What a server cannot do to this process: fill its memory, keep it, or have its key."""

from __future__ import annotations

import datetime as dt
import gzip
import ipaddress
import json
import re
import socket
import ssl
import threading
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from wb_ops import (
    Api,
    AuthenticationFailed,
    CommError,
    InvalidRequest,
    MalformedResponse,
    NotFound,
    OutcomeUnknown,
    PermissionDenied,
    RateLimited,
    RequestTimeout,
    ServerUnavailable,
)
from wb_ops.client.downloads import temporary_file
from wb_ops.client.operations import Operation
from wb_ops.devserver import DevServer, Fault, Matcher, Responder
from wb_ops.settings import Settings

RUN = Matcher(operation="Run")
KEY = "k" * 40


@contextmanager
def answering(answer: bytes, context: ssl.SSLContext | None = None) -> Iterator[tuple[str, list]]:
    """A server that says one thing to everybody; its address, and what it was sent."""
    heard: list[bytes] = []

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                try:
                    spoken = context.wrap_socket(connection, True) if context else connection
                    heard.append(request_from(spoken))
                    spoken.sendall(answer)
                except OSError:
                    continue

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        yield f"http{'s' if context else ''}://127.0.0.1:{listener.getsockname()[1]}", heard
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)


def request_from(spoken: socket.socket) -> bytes:
    """All of a request: who closes before it has come resets the connection, answer and all."""
    request = b""
    while chunk := spoken.recv(65536):
        request += chunk
        head, end, body = request.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        if end and len(body) >= (int(length[1]) if length else 0):
            break
    return request


def api_of(url: str, **settings: float | int) -> Api:
    once = Settings(api_key=KEY, base_url=url, max_attempts=1, timeout_s=20)
    return Api(settings=replace(once, **settings))


@pytest.fixture
def bomb() -> Iterator[str]:
    """200 MB of zeros in 200 kB."""
    packed = BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb") as file:
        for _ in range(200):
            file.write(bytes(1_000_000))
    body = packed.getvalue()
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(body)}\r\n\r\n"
    with answering(head.encode() + body) as (url, _):
        yield url


def test_a_bomb_is_refused_before_it_is_in_memory(bomb: str):
    api = api_of(bomb, max_body_bytes=4_000_000)
    tracemalloc.start()
    with pytest.raises(InvalidRequest, match="max_body_bytes=4000000") as caught:
        _ = api.viewer
    assert caught.value.advice.kind == "never"
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16_000_000


def test_a_bomb_for_an_answer_to_a_write_leaves_it_unknown(bomb: str):
    transport = api_of(bomb, max_body_bytes=1_000_000).transport
    with pytest.raises(OutcomeUnknown, match="max_body_bytes"):
        transport.execute(Operation("UpsertBucket", "mutation", is_write=True))


def test_a_bomb_for_a_file_stays_within_the_bound(bomb: str):
    with temporary_file() as file:
        with pytest.raises(InvalidRequest, match="max_body_bytes"):
            api_of(bomb, max_body_bytes=1_000_000).transport.download_to(file, "/files/x")
        assert file.seek(0, 2) <= 1_000_000


def test_a_file_may_be_as_large_as_it_is_announced():
    body = bytes(3_000_000)
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with answering(head + body) as (url, _), temporary_file() as file:
        transport = api_of(url, max_body_bytes=1_000_000).transport
        assert transport.download_to(file, "/files/x")
        assert file.seek(0, 2) == 3_000_000
        with pytest.raises(InvalidRequest, match="max_body_bytes"):
            transport.download_to(BytesIO(), "/files/x")


def slowly(listener: socket.socket) -> None:
    """4 kB in every tenth of a second, without end, to whoever comes."""
    while True:
        try:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n")
                while True:
                    connection.sendall(bytes(4096))
                    time.sleep(0.1)
        except ConnectionError:
            continue
        except OSError:
            return


@pytest.mark.parametrize("kind", ["answer", "file"])
def test_a_body_that_never_ends_is_given_up(kind: str):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=slowly, args=(listener,), daemon=True)
        thread.start()
        api = api_of(f"http://127.0.0.1:{listener.getsockname()[1]}", max_total_s=0.5)
        with temporary_file() as file, pytest.raises(RequestTimeout, match=r"within 0\.5 s"):
            _ = api.viewer if kind == "answer" else api.transport.download_to(file, "/files/x")
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)


@pytest.mark.parametrize("body", [b"\x1f\x8b broken", b"not gzip at all"])
def test_a_body_that_cannot_be_unpacked_is_ours(body: bytes):
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(body)}\r\n\r\n"
    with answering(head.encode() + body) as (url, _), pytest.raises(MalformedResponse):
        _ = api_of(url).viewer


@pytest.mark.parametrize("status", [200, 500])
def test_a_body_nested_without_end_is_ours(status: int):
    body = b"[" * 100_000
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with answering(head + body) as (url, _):
        api = api_of(url)
        with pytest.raises(MalformedResponse if status == 200 else ServerUnavailable):
            _ = api.viewer
        with pytest.raises(MalformedResponse if status == 200 else ServerUnavailable):
            api.transport._exchange("a token")


def test_certificates_that_are_not_there_are_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nope")
    with pytest.raises(InvalidRequest, match=r"/nope.*REQUESTS_CA_BUNDLE"):
        _ = api_of("https://127.0.0.1:9").viewer


def test_certificates_that_are_none_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    bundle = tmp_path / "bundle.pem"
    bundle.write_text("-----BEGIN CERTIFICATE-----\nwhat")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    with (
        answering(b"") as (url, _),
        pytest.raises(InvalidRequest, match=r"REQUESTS_CA_BUNDLE.* holds no certificate"),
    ):
        _ = api_of(url.replace("http:", "https:")).viewer


def test_a_proxy_that_wants_a_password_is_not_asked_again(monkeypatch: pytest.MonkeyPatch):
    refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
    with answering(refusal) as (proxy, heard):
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        with pytest.raises(InvalidRequest, match="HTTPS_PROXY=http://user:password@host:port"):
            _ = api_of("https://wandb.invalid", max_attempts=3).viewer
    assert len(heard) == 1


def test_total_time_is_bounded(server: DevServer):
    server.faults.add(Fault(RUN, Responder.error(502), times=None))
    settings = Settings(
        api_key=server.api_key, base_url=server.url, max_attempts=1000, max_total_s=1.5
    )
    with Api(settings=settings) as api, pytest.raises(ServerUnavailable) as caught:
        api.run("ann/trials/r1")
    assert 1 <= caught.value.attempts == len(server.requests) < 100


def test_requests_in_flight_are_bounded_for_all_clients_of_a_key(server: DevServer):
    server.seed_run("ann", "trials", "r1")
    server.faults.add(Fault(RUN, Responder.slow(0.2), times=None))
    settings = Settings(api_key=server.api_key, base_url=server.url, max_in_flight=3)
    apis = [Api(settings=settings), Api(settings=settings)]
    with ThreadPoolExecutor(12) as pool:
        jobs = [pool.submit(apis[at % 2].run, "ann/trials/r1") for at in range(12)]
        assert {job.result().id for job in jobs} == {"r1"}
    spans = [(one.time, one.time + one.duration_s) for one in server.requests]
    most = max(sum(start <= at < end for start, end in spans) for at, _ in spans)
    assert most == 3


def test_one_limit_holds_every_client_of_a_key_back(server: DevServer):
    server.seed_run("ann", "trials", "r1")
    server.faults.add(Fault(RUN, Responder.rate_limited(30)))
    settings = Settings(api_key=server.api_key, base_url=server.url, max_wait_s=1)
    with pytest.raises(RateLimited):
        Api(settings=settings).run("ann/trials/r1")
    for _ in range(3):
        with pytest.raises(RateLimited, match="spent"), Api(settings=settings) as other:
            other.run("ann/trials/r1")
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("message", "cls", "requests"),
    [
        ("permission denied", PermissionDenied, 1),
        ("user is unauthenticated", AuthenticationFailed, 1),
        ("run not found", NotFound, 1),
        ("Cannot query field x on type Run", InvalidRequest, 1),
        ("internal system error", ServerUnavailable, 2),
        ("context deadline exceeded", ServerUnavailable, 2),
        ("rate limit exceeded", RateLimited, 2),
        ("something nobody has seen", InvalidRequest, 1),
    ],
)
@pytest.mark.parametrize("form", ["graphql", "text", "rest"])
def test_an_error_in_a_200_is_an_error(
    server: DevServer, message: str, cls: type[CommError], requests: int, form: str
):
    """Beside whole data too, in each of the forms that W&B uses."""
    found = {"project": {"run": {"name": "r1"}}}
    bodies = {
        "graphql": {"data": found, "errors": [{"message": message}]},
        "text": {"data": found, "errors": [message]},
        "rest": {"error": {"message": message}},
    }
    answer = Responder(status=200, body=json.dumps(bodies[form]))
    server.faults.add(Fault(RUN, answer, times=None))
    settings = Settings(api_key=server.api_key, base_url=server.url, max_attempts=2)
    with Api(settings=settings) as api, pytest.raises(cls, match=message):
        api.run("ann/trials/r1")
    assert len(server.requests) == requests


def test_a_limit_in_a_200_is_waited_for(server: DevServer):
    body = json.dumps({"errors": [{"message": "rate limit exceeded"}]})
    headers = {"RateLimit-Remaining": "0", "RateLimit-Reset": "30"}
    server.faults.add(Fault(RUN, Responder(status=200, body=body, headers=headers)))
    settings = Settings(api_key=server.api_key, base_url=server.url, max_wait_s=1)
    with Api(settings=settings) as api, pytest.raises(RateLimited) as caught:
        api.run("ann/trials/r1")
    assert caught.value.advice.seconds == 30


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_takes_no_key_along(server: DevServer, status: int):
    server.seed_run("ann", "trials", "r1", files={"a.txt": "true"})
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nsent") as (elsewhere, heard):
        to_there = Responder(status=status, headers={"Location": f"{elsewhere}/x?signature=s"})
        server.faults.add(Fault(Matcher(method="GET"), to_there))
        with Api({"base_url": server.url}, api_key=server.api_key) as api:
            assert api.run("ann/trials/r1").file("a.txt").read() == b"sent"
    assert len(heard) == 1
    assert b"authorization" not in heard[0].lower()


def test_a_query_is_not_redirected(server: DevServer):
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as (elsewhere, heard):
        server.faults.add(Fault(RUN, Responder(status=307, headers={"Location": elsewhere})))
        api = api_of(server.url)
        with pytest.raises(InvalidRequest, match="set base_url"):
            api.run("ann/trials/r1")
    assert heard == []


@pytest.mark.parametrize("location", ["http://[::1", "http://host:port/", "//[", "ftp://host/", ""])
def test_a_redirect_to_nowhere_is_ours(server: DevServer, location: str):
    server.seed_run("ann", "trials", "r1", files={"a.txt": "true"})
    to_there = Responder(status=302, headers={"Location": location})
    server.faults.add(Fault(Matcher(method="GET"), to_there, times=None))
    settings = Settings(api_key=server.api_key, base_url=server.url, max_attempts=1)
    with Api(settings=settings) as api, pytest.raises(CommError):
        api.run("ann/trials/r1").file("a.txt").read()


def test_what_a_storage_says_after_a_redirect_is_not_repeated(server: DevServer):
    server.seed_run("ann", "trials", "r1", files={"a.txt": "true"})
    body = b"<Error>signature=SECRET has expired</Error>"
    head = f"HTTP/1.1 403 Forbidden\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with answering(head + body) as (elsewhere, _):
        to_there = Responder(status=302, headers={"Location": f"{elsewhere}/x?signature=SECRET"})
        server.faults.add(Fault(Matcher(method="GET"), to_there))
        settings = Settings(api_key=server.api_key, base_url=server.url, max_attempts=1)
        with Api(settings=settings) as api:
            with pytest.raises(ServerUnavailable, match=r"a\.txt") as caught:
                api.run("ann/trials/r1").file("a.txt").read()
            assert "SECRET" not in str(caught.value)
            assert api.run("ann/trials/r1").file("a.txt").read() == b"true"


def test_no_log_shows_the_key(server: DevServer, caplog: pytest.LogCaptureFixture):
    server.seed_run("ann", "trials", "r1")
    echo = json.dumps({"errors": [{"message": f"{server.api_key} is slow"}]})
    server.faults.add(Fault(RUN, Responder(status=503, body=echo)))
    with caplog.at_level("DEBUG"), Api({"base_url": server.url}, api_key=server.api_key) as api:
        assert api.run("ann/trials/r1").id == "r1"
    assert "*** is slow" in caplog.text
    assert server.api_key not in caplog.text


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """For 127.0.0.1, signed by itself; with its private key in the same file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path = tmp_path / "certificate.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + private)
    return path


def test_a_server_that_cannot_prove_its_name_gets_nothing(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    body = b'{"data": {"viewer": {"username": "ann"}}}'
    answer = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    monkeypatch.setenv("WANDB_INSECURE_DISABLE_SSL", "true")
    with answering(answer, context) as (url, heard):
        with pytest.raises(InvalidRequest, match=r"SSL.*set REQUESTS_CA_BUNDLE to"):
            _ = api_of(url).viewer
        assert heard == []
        # The same server is fine for one who trusts its certificate.
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        assert api_of(url).viewer.username == "ann"
    assert len(heard) == 1
