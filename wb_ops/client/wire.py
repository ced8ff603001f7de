"""One HTTP request and its answer, read to its end: bounded in size and in time."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter

from wb_ops import __version__
from wb_ops.client.auth import Unsigned, WandbAuth
from wb_ops.client.downloads import Sink, disk_errors
from wb_ops.client.failures import BodyRefused, BodyTooLate
from wb_ops.client.responses import Response
from wb_ops.client.traffic import Traffic
from wb_ops.settings import Settings, is_loopback

CHUNK_BYTES = 1 << 18
# A body slower than this, once `timeout_s` has passed, counts as no answer.
MIN_BYTES_PER_S = 1024
# A file slower than this is given up once `max_total_s` has passed; any other body is anyhow.
MIN_FILE_BYTES_PER_S = 64 * 1024
USER_AGENT = f"W&B Public Client wb_ops/{__version__}"

# A proxy of the environment is for other machines.
NO_PROXY: Any = {"http": None, "https": None, "all": None}


def _is_announced(answer: requests.Response) -> bool:
    headers = answer.headers
    return "Content-Length" in headers and "Content-Encoding" not in headers


class _Session(requests.Session):
    """A session that does not read redirects, not even to prepare the next request.

    The transport follows them, and `requests` lets a ValueError out over an address that is none.
    """

    def get_redirect_target(self, resp: requests.Response) -> None:
        """None, as if there were no redirect."""


class Wire:
    """Sends single requests, from any number of threads; follows nothing and repeats nothing."""

    def __init__(self, settings: Settings, auth: WandbAuth, traffic: Traffic) -> None:
        self._settings = settings
        self._auth = auth
        self._traffic = traffic
        self._local = threading.local()

    def request(
        self,
        method: str,
        url: str,
        *,
        json: dict[str, Any] | None = None,
        form: dict[str, str] | None = None,
        sink: Sink | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Send one request; the body of a file goes to `sink`, where there is one.

        A request with a `form` is not signed: it asks for what others are signed with.

        Raises:
            requests.RequestException, urllib3.exceptions.HTTPError: see `failures.mapped`.
        """
        self._traffic.add(requests=1)
        with self._session().request(
            method,
            url,
            json=json,
            data=form,
            headers=headers,
            auth=self._auth if form is None else Unsigned(),
            timeout=self._settings.timeout_s,
            allow_redirects=False,
            stream=True,
            proxies=NO_PROXY if is_loopback(urlsplit(url).hostname or "") else None,
        ) as answer:
            # An answer that is no file says why, and that is read as text.
            file = sink if sink and sink.begin(answer.status_code, answer.headers) else None
            content = BytesIO()
            is_memory = file is None or file.is_memory
            size = self._receive(answer, file or content, is_memory=is_memory)
            self._traffic.add(received_bytes=size)
            is_ours = self._auth.is_ours(url)
            # What a storage answers to a refused URL may quote its signature.
            body = content.getvalue() if is_ours else b""
            return Response(answer.status_code, answer.headers, body, is_ours)

    def _receive(self, answer: requests.Response, sink: Sink | BytesIO, *, is_memory: bool) -> int:
        size = 0
        # On the disk, what is announced and not packed cannot be more than it says.
        is_bounded = is_memory or not _is_announced(answer)
        started = time.monotonic()
        # read1 returns what is there: a body that drips is noticed, not waited for.
        while chunk := answer.raw.read1(CHUNK_BYTES, decode_content=True):
            size += len(chunk)
            if is_bounded and size > self._settings.max_body_bytes:
                raise BodyRefused(
                    f"the answer is larger than max_body_bytes={self._settings.max_body_bytes} "
                    "of the settings"
                )
            self._check_pace(size, time.monotonic() - started, is_memory=is_memory)
            with disk_errors():
                sink.write(chunk)
        return size

    def _check_pace(self, size: int, seconds: float, *, is_memory: bool) -> None:
        if seconds > self._settings.timeout_s and size < seconds * MIN_BYTES_PER_S:
            raise requests.exceptions.ReadTimeout("the answer drips")
        is_slow = is_memory or size < seconds * MIN_FILE_BYTES_PER_S
        if seconds > self._settings.max_total_s and is_slow:
            raise BodyTooLate(f"the answer has not ended within {self._settings.max_total_s:g} s")

    def _session(self) -> requests.Session:
        # A requests.Session is not safe to share between threads.
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = _Session()
            session.headers["User-Agent"] = USER_AGENT
            adapter = HTTPAdapter(pool_maxsize=2, max_retries=0)
            session.mount("https://", adapter)
            session.mount("http://", adapter)
            self._local.session = session
        return session
