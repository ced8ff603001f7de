"""A person presses Ctrl-C in the middle: what is asked afterwards is answered in full."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import ExitStack

import pytest

from wb_ops import Api
from wb_ops.client.downloads import temporary_file
from wb_ops.client.files import Files
from wb_ops.client.history import HistoryReader
from wb_ops.client.runs import Runs
from wb_ops.client.source import RunSource
from wb_ops.client.transport import Transport
from wb_ops.devserver import DevServer, Fault, Matcher, Responder
from wb_ops.settings import Settings


class Interrupted:
    """The first wait is interrupted."""

    def __init__(self) -> None:
        self.is_over = False

    def __call__(self, seconds: float) -> None:
        if not self.is_over:
            self.is_over = True
            raise KeyboardInterrupt
        time.sleep(seconds)


@pytest.fixture
def source(server: DevServer) -> RunSource:
    settings = Settings(api_key=server.api_key, base_url=server.url)
    return RunSource(Transport(settings, Interrupted()), "ann", "trials")


def test_a_list_of_runs_is_no_shorter(server: DevServer, source: RunSource):
    server.seed_runs(
        {"entity": "ann", "project": "trials", "run_id": f"r{index}"} for index in range(30)
    )
    server.faults.add(Fault(Matcher(operation="Runs", nth=2), Responder.error(502)))
    runs = Runs(source, HistoryReader(1), per_page=5)
    with pytest.raises(KeyboardInterrupt):
        list(runs)
    assert len({run.id for run in runs}) == 30


def test_a_list_of_files_is_no_shorter(server: DevServer, source: RunSource):
    server.seed_run("ann", "trials", "r1", files={f"f{index}.txt": "x" for index in range(9)})
    server.faults.add(Fault(Matcher(operation="RunFiles", nth=2), Responder.error(502)))
    files = Files(source, "r1", per_page=3)
    with pytest.raises(KeyboardInterrupt):
        list(files)
    assert len(list(files)) == 9


def press_ctrl_c() -> None:
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def test_a_download_writes_into_no_file_of_others():
    rows = [{"_step": step, "x": step / 3} for step in range(100)]
    exports = Matcher(origin="storage")
    with DevServer(parquet_rows_per_file=10) as server:
        server.seed_run("ann", "trials", "r1", history=rows)
        settings = {"base_url": server.url}
        with Api(settings, api_key=server.api_key) as api, ExitStack() as opened:
            run = api.run("ann/trials/r1")
            slow = Responder.slow(0.5)
            server.faults.add(Fault(exports, slow, action=press_ctrl_c))
            server.faults.add(Fault(exports, slow, times=None))
            with pytest.raises(KeyboardInterrupt):
                run.history_table(keys=["x"])
            # They get the numbers of the files that were downloaded to.
            files = [opened.enter_context(temporary_file()) for _ in range(30)]
            run._reader.close()
            assert [file.seek(0, 2) for file in files] == [0] * len(files)
