"""The only door to the network and the only retry loop.

A request is tried again in process while its advice is BACKOFF (full jitter) or AFTER (exactly
the server's wait), within `max_attempts` and `max_total_s`. A wait longer than `max_wait_s` is
raised at once: the orchestrator waits better than a worker does.
"""

from __future__ import annotations

import base64
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from io import BytesIO
from typing import IO, Any, TypeVar
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    stop_before_delay,
    wait_random_exponential,
)

from wb_ops.client.auth import WandbAuth
from wb_ops.client.failures import hide_queries_in_logs, mapped
from wb_ops.client.operations import Operation
from wb_ops.client.pacing import shared_budget
from wb_ops.client.responses import Response, read_graphql, status_error
from wb_ops.errors import (
    AdviceKind,
    CommError,
    Facts,
    InvalidRequest,
    RateLimited,
)
from wb_ops.settings import Settings, is_loopback

MAX_BODY_BYTES = 2 * 1024**3
CHUNK_BYTES = 1 << 18
# A body slower than this, once `timeout_s` has passed, counts as no answer.
MIN_BYTES_PER_S = 1024
MAX_REDIRECTS = 5
BACKOFF_S = 0.5
MAX_BACKOFF_S = 20.0
USER_AGENT = "W&B Public Client wb_ops/0.1.0"

# A proxy of the environment is for other machines.
NO_PROXY: Any = {"http": None, "https": None, "all": None}

log = logging.getLogger("wb_ops")
T = TypeVar("T")


@dataclass(slots=True)
class Traffic:
    """What a transport has sent and received so far; read it before and after to measure.

    `waited_s` is time slept because the server asked for it, summed over threads.
    """

    requests: int = 0
    received_bytes: int = 0
    retries: int = 0
    waited_s: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(
        self,
        *,
        requests: int = 0,
        received_bytes: int = 0,
        retries: int = 0,
        waited_s: float = 0.0,
    ) -> None:
        """Count, from any thread."""
        with self.lock:
            self.requests += requests
            self.received_bytes += received_bytes
            self.retries += retries
            self.waited_s += waited_s


class Transport:
    """Sends requests for one key on one server, from any number of threads."""

    def __init__(self, settings: Settings, sleep: Callable[[float], None] = time.sleep) -> None:
        self.settings = settings
        self.traffic = Traffic()
        self.budget = shared_budget(settings.base_url, settings.api_key)
        self._auth = WandbAuth(settings.base_url, settings.api_key)
        self._sleep = sleep
        self._local = threading.local()
        self._in_flight = threading.BoundedSemaphore(settings.max_in_flight)
        basic = base64.b64encode(f"api:{settings.api_key}".encode()).decode()
        self._secrets = (settings.api_key, basic)
        hide_queries_in_logs()

    def __repr__(self) -> str:
        return f"Transport({self.settings.base_url!r})"

    def execute(self, operation: Operation, path: str | None = None) -> dict[str, Any]:
        """Send one GraphQL operation and return its `data`.

        Raises:
            CommError: by the table in `errors`; a write whose answer is lost is OutcomeUnknown.
        """
        facts: Facts = {"operation": operation.name, "path": path}
        body = {
            "operationName": operation.name,
            "query": operation.document,
            "variables": dict(operation.variables),
        }

        def attempt() -> dict[str, Any]:
            response = self._send("POST", "/graphql", facts, body, is_write=operation.is_write)
            return read_graphql(response, facts, is_write=operation.is_write)

        return self._retry(attempt)

    def download(self, url: str, path: str | None = None) -> bytes:
        """Return the body behind `url`; the key goes along only if the URL is W&B's own.

        Raises:
            CommError: PermissionDenied for a signed URL that has expired; else by the table.
        """
        facts: Facts = {"operation": "download", "path": path}

        def attempt() -> bytes:
            response = self._send("GET", url, facts)
            self._check_download(url, response, facts)
            return response.body

        return self._retry(attempt)

    def download_to(self, file: IO[bytes], url: str, path: str | None = None) -> bool:
        """Write the body behind `url` into `file`, which is emptied before each attempt.

        Returns:
            Whether the URL was good; False means that a signed URL was refused (stores answer
            400, 401, 403 or 404 to one that has expired): ask for a new one.

        Raises:
            CommError: by the table in `errors`.
        """
        facts: Facts = {"operation": "download", "path": path}

        def attempt() -> bool:
            file.seek(0)
            file.truncate()
            response = self._send("GET", url, facts, sink=file)
            is_refused = 400 <= response.status < 500 and response.status not in (408, 429)
            if is_refused and not self._auth.is_ours(url):
                return False
            self._check_download(url, response, facts)
            return True

        return self._retry(attempt)

    def _check_download(self, url: str, response: Response, facts: Facts) -> None:
        if response.status == 200:
            return
        # What a storage answers may quote the signature.
        told = response if self._auth.is_ours(url) else replace(response, body=b"")
        raise status_error(told, {**facts, "http_status": response.status})

    def _retry(self, attempt: Callable[[], T]) -> T:
        settings = self.settings
        retrying = Retrying(
            stop=stop_after_attempt(settings.max_attempts)
            | stop_before_delay(settings.max_total_s),
            wait=_wait_s,
            retry=retry_if_exception(self._is_worth_waiting),
            before_sleep=self._note_retry,
            sleep=self._sleep,
            reraise=True,
        )
        try:
            return retrying(attempt)
        except CommError as error:
            error.attempts = int(retrying.statistics.get("attempt_number", 1))
            error.args = (self._mask(error.message),)
            error.message = error.args[0]
            raise

    def _is_worth_waiting(self, exc: BaseException) -> bool:
        if not isinstance(exc, CommError):
            return False
        advice = exc.advice
        if advice.kind is AdviceKind.AFTER:
            return (advice.seconds or 0) <= self.settings.max_wait_s
        return advice.kind is AdviceKind.BACKOFF

    def _note_retry(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        wait_s = state.next_action.sleep if state.next_action else 0.0
        is_asked = isinstance(error, CommError) and error.advice.kind is AdviceKind.AFTER
        self.traffic.add(retries=1, waited_s=wait_s if is_asked else 0.0)
        log.warning(
            "%s; trying again in %.1f s (attempt %d of %d)",
            self._mask(str(error)),
            wait_s,
            state.attempt_number,
            self.settings.max_attempts,
        )

    def _send(
        self,
        method: str,
        url: str,
        facts: Facts,
        body: dict[str, Any] | None = None,
        *,
        is_write: bool = False,
        sink: IO[bytes] | None = None,
    ) -> Response:
        if url.startswith("/"):
            url = self.settings.base_url + url
        for _ in range(MAX_REDIRECTS):
            self._wait_for_budget(facts)
            with self._in_flight, mapped(facts, is_write=is_write):
                response = self._one_request(method, url, body, sink)
            if self._auth.is_ours(url):
                self.budget.observe(response.status, response.headers)
            if response.status not in (301, 302, 303, 307, 308):
                return response
            url = self._redirected(method, url, response, facts)
        raise InvalidRequest(f"More than {MAX_REDIRECTS} redirects.", **facts)

    def _wait_for_budget(self, facts: Facts) -> None:
        try:
            waited_s = self.budget.take(self._sleep, self.settings.max_wait_s)
        except RateLimited as error:
            error.operation, error.path = facts.get("operation"), facts.get("path")
            raise
        if waited_s:
            self.traffic.add(waited_s=waited_s)

    def _one_request(
        self, method: str, url: str, body: dict[str, Any] | None, sink: IO[bytes] | None
    ) -> Response:
        self.traffic.add(requests=1)
        with self._session().request(
            method,
            url,
            json=body,
            auth=self._auth,
            timeout=self.settings.timeout_s,
            allow_redirects=False,
            stream=True,
            proxies=NO_PROXY if is_loopback(urlsplit(url).hostname or "") else None,
        ) as answer:
            # An answer that is no file says why, and that is read as text.
            content = BytesIO() if sink is None or answer.status_code != 200 else None
            size = self._receive(answer, content or sink)
            self.traffic.add(received_bytes=size)
            body_read = content.getvalue() if content is not None else b""
            return Response(answer.status_code, answer.headers, body_read)

    def _receive(self, answer: requests.Response, sink: IO[bytes] | None) -> int:
        size = 0
        started = time.monotonic()
        # read1 returns what is there: a body that drips is noticed, not waited for.
        while chunk := answer.raw.read1(CHUNK_BYTES, decode_content=True):
            size += len(chunk)
            if size > MAX_BODY_BYTES:
                raise requests.exceptions.ContentDecodingError(
                    f"the answer is larger than {MAX_BODY_BYTES} bytes"
                )
            seconds = time.monotonic() - started
            if seconds > self.settings.timeout_s and size < seconds * MIN_BYTES_PER_S:
                raise requests.exceptions.ReadTimeout("the answer drips")
            if sink is not None:
                sink.write(chunk)
        return size

    def _redirected(self, method: str, url: str, response: Response, facts: Facts) -> str:
        target = urljoin(url, response.headers.get("Location", ""))
        parts = urlsplit(target)
        if method != "GET" or parts.scheme not in ("http", "https"):
            raise InvalidRequest(
                f"{self.settings.base_url} redirects to {parts.scheme}://{parts.netloc}: "
                "set base_url to W&B's API itself.",
                **facts,
            )
        return target

    def _session(self) -> requests.Session:
        # A requests.Session is not safe to share between threads.
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = requests.Session()
            session.headers["User-Agent"] = USER_AGENT
            adapter = HTTPAdapter(pool_maxsize=2, max_retries=0)
            session.mount("https://", adapter)
            session.mount("http://", adapter)
            self._local.session = session
        return session

    def _mask(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


_backoff = wait_random_exponential(multiplier=BACKOFF_S, max=MAX_BACKOFF_S)


def _wait_s(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, CommError) and error.advice.seconds is not None:
        return error.advice.seconds
    return _backoff(state)
