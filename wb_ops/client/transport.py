"""The only door to the network: whose turn it is, what is followed, and what an answer means."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain, repeat
from typing import Any
from urllib.parse import urlsplit

from wb_ops.client.addresses import absolute, redirected
from wb_ops.client.auth import WandbAuth
from wb_ops.client.credentials import credential_of
from wb_ops.client.downloads import Sink, WholeFile, Writable
from wb_ops.client.failures import hide_queries_in_logs, mapped
from wb_ops.client.operations import Operation
from wb_ops.client.pacing import RequestBudget, shared_budget
from wb_ops.client.responses import Response, check_download, read_graphql, read_token
from wb_ops.client.retries import GivesUp, Retries
from wb_ops.client.traffic import Traffic
from wb_ops.client.wire import Wire
from wb_ops.errors import Facts, InvalidRequest, MalformedResponse, RateLimited
from wb_ops.settings import Settings

MAX_REDIRECTS = 5
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"


class Transport:
    """Sends requests for one key on one server, from any number of threads.

    `sleep` and `clock` say how time passes between requests: both are replaced together.
    """

    def __init__(
        self,
        settings: Settings,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.traffic = Traffic()
        self.budget = shared_budget(settings.base_url, settings.identity, clock)
        self._credential = credential_of(settings)
        self._auth = WandbAuth(settings.base_url, self._credential)
        self._wire = Wire(settings, self._auth, self.traffic)
        self._sleep = sleep
        self._clock = clock
        self._storage_budgets: dict[str, RequestBudget] = {}
        self._budgets_lock = threading.Lock()
        self._retries = Retries(settings, self.traffic, self._mask, sleep, clock)
        hide_queries_in_logs()

    def __repr__(self) -> str:
        return f"Transport({self.settings.base_url!r})"

    def end_after(self, seconds: float) -> None:
        """Begin no request later than this; from then on all of them raise RequestTimeout.

        For callers that are ended from outside after some time, however many requests they need.
        """
        self._retries.end_after(seconds)

    def execute(
        self, operation: Operation, path: str | None = None, gives_up: GivesUp | None = None
    ) -> dict[str, Any]:
        """Send one GraphQL operation and return its `data`.

        `gives_up(error, attempts)` ends the retries early where the caller knows better.

        Raises:
            CommError: by the table in `errors`; a write whose answer is lost is OutcomeUnknown.
        """
        self._prepare()
        return self._retries.run(lambda: self._execute_once(operation, path), gives_up)

    def execute_fresh(
        self, operation: Operation, renew: Callable[[], Operation], path: str | None = None
    ) -> dict[str, Any]:
        """As `execute`, for what was made from an answer that is old after a wait.

        After any wait, for a limit or for another attempt, `renew()` makes the operation anew.
        An error of `renew()` is not tried again here: the requests in it were.
        """
        operations = chain([lambda: operation], repeat(renew))

        def attempt() -> dict[str, Any]:
            return self._execute_once(next(operations)(), path, may_wait=False)

        self._prepare()
        return self._retries.run(attempt, lambda error, _: error.operation != operation.name)

    def _execute_once(
        self, operation: Operation, path: str | None, *, may_wait: bool = True
    ) -> dict[str, Any]:
        facts: Facts = {"operation": operation.name, "path": path}
        body = {
            "operationName": operation.name,
            "query": operation.document,
            "variables": dict(operation.variables),
        }
        is_write = operation.is_write
        response = self._send("POST", "/graphql", facts, body, is_write=is_write, may_wait=may_wait)
        return read_graphql(response, facts, is_write=is_write)

    def download_to(
        self, file: Writable, url: str, path: str | None = None, *, size_bytes: int | None = None
    ) -> bool:
        """Write the body behind `url` into `file`, which is emptied before each attempt.

        The key goes along only if the URL is W&B's own. `size_bytes` is what must arrive, where
        it is known.

        Returns:
            Whether the URL was good; False means that a signed URL was refused (any 4xx but 408,
            416 and 429; stores differ in what they answer to one that has expired): ask for a
            new one.

        Raises:
            CommError: by the table in `errors`.
        """

        def check_size() -> None:
            if size_bytes is not None and file.tell() != size_bytes:
                raise MalformedResponse(
                    f"{path}: {file.tell()} bytes came, {size_bytes} were listed.",
                    operation="download",
                    path=path,
                )

        return self.download_into(WholeFile(file), url, path, check=check_size)

    def download_into(
        self,
        sink: Sink,
        url: str,
        path: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        check: Callable[[], None] | None = None,
    ) -> bool:
        """As `download_to`, into a sink that may be a range of a file.

        `check` raises if what came is not what was wanted: then it is asked for again.
        """
        facts: Facts = {"operation": "download", "path": path}
        is_signed = not self._auth.is_ours(absolute(self.settings.base_url, url, facts))

        def attempt() -> bool:
            response = self._send("GET", url, facts, sink=sink, headers=headers)
            is_refused = 400 <= response.status < 500 and response.status not in (408, 416, 429)
            if is_signed and is_refused:
                return False
            if not sink.takes(response.status):
                check_download(response, facts)
            if check is not None:
                check()
            return True

        self._prepare()
        return self._retries.run(attempt)

    def _prepare(self) -> None:
        """Have a credential that outlasts all attempts of one request."""
        self._credential.renew(self._exchange)

    def _exchange(self, identity_token: str) -> dict[str, Any]:
        """Ask W&B for an access token. Source: RFC 7523, as SDK 0.31 does it."""
        facts: Facts = {"operation": "oidc/token"}
        form = {"grant_type": JWT_BEARER, "assertion": identity_token}

        def attempt() -> dict[str, Any]:
            return read_token(self._send("POST", "/oidc/token", facts, form=form), facts)

        return self._retries.run(attempt)

    def _send(
        self,
        method: str,
        url: str,
        facts: Facts,
        body: dict[str, Any] | None = None,
        *,
        is_write: bool = False,
        form: dict[str, str] | None = None,
        sink: Sink | None = None,
        headers: Mapping[str, str] | None = None,
        may_wait: bool = True,
    ) -> Response:
        max_wait_s = self.settings.max_wait_s if may_wait else 0.0
        url = absolute(self.settings.base_url, url, facts)
        for _ in range(MAX_REDIRECTS):
            budget = self._budget_of(url)
            turn = self._turn(budget, facts, max_wait_s)
            with turn, self._timed(), mapped(facts, is_write=is_write):
                response = self._wire.request(
                    method, url, json=body, form=form, sink=sink, headers=headers
                )
                budget.observe(response.status, response.headers)
            if response.status not in (301, 302, 303, 307, 308):
                return response
            url = redirected(self.settings.base_url, method, url, response, facts)
        raise InvalidRequest(f"More than {MAX_REDIRECTS} redirects.", **facts)

    def _budget_of(self, url: str) -> RequestBudget:
        """W&B's own budget, or that of the storage behind a signed URL."""
        if self._auth.is_ours(url):
            return self.budget
        with self._budgets_lock:
            host = urlsplit(url).netloc
            return self._storage_budgets.setdefault(host, RequestBudget(self._clock))

    @contextmanager
    def _turn(self, budget: RequestBudget, facts: Facts, max_wait_s: float) -> Iterator[None]:
        """One of the requests in flight, at a time when the budget allows it."""
        while True:
            self._wait_for(budget, facts, max_wait_s)
            with self.budget.slot(self.settings.max_in_flight):
                # Others may have been told to wait while this one queued.
                if budget.is_open:
                    yield
                    return

    @contextmanager
    def _timed(self) -> Iterator[None]:
        began = self._clock()
        try:
            yield
        finally:
            self.traffic.add(busy_s=self._clock() - began)

    def _wait_for(self, budget: RequestBudget, facts: Facts, max_wait_s: float) -> None:
        try:
            waited_s = budget.take(self._sleep, max_wait_s)
        except RateLimited as error:
            error.operation, error.path = facts.get("operation"), facts.get("path")
            raise
        if waited_s:
            self.traffic.add(waited_s=waited_s)

    def _mask(self, text: str) -> str:
        for secret in self._credential.secrets:
            text = text.replace(secret, "***")
        return text
