"""What the scripts that take pictures share: a free port, patience, and a browser.

pip install playwright        # apt-get install chromium; nothing is downloaded by playwright
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Any

from playwright.sync_api import Page, sync_playwright

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_for(what: Callable[[], Any], limit_s: float = 600) -> Any:
    """The first true answer."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        with suppress(OSError, KeyError):
            if found := what():
                return found
        time.sleep(1)
    raise TimeoutError(f"nothing within {limit_s} s")


def end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ask processes that lead a group of their own to end, then kill what is left of them."""
    for process in processes:
        process.send_signal(signal.SIGINT)
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def browser_page() -> Iterator[Page]:
    """An empty page of a real browser."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme="light")
        page.set_default_timeout(120_000)
        yield page
        browser.close()
