"""Files of a run: whole or not at all, and never outside the folder that was named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from wb_ops import Api, ConnectionFailed, InvalidRequest, MalformedResponse, NotFound, Run
from wb_ops.devserver import DevServer, Fault, Matcher, Responder
from wb_ops.settings import Settings

GET = Matcher(method="GET")


@pytest.fixture
def run(server: DevServer) -> Run:
    files = {f"part{number:03}.json": "{}" for number in range(120)}
    files |= {"model.bin": bytes(range(256)) * 4000, "media/größe 1.txt": "grüße", "empty": ""}
    server.seed_run("ann", "trials", "r1", files=files)
    settings = Settings(api_key=server.api_key, base_url=server.url, max_attempts=1)
    return Api(settings=settings).run("ann/trials/r1")


def left_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_the_list_is_lazy_and_has_a_length(run: Run, server: DevServer):
    server.requests.clear()
    files = run.files()
    assert len(server.requests) == 0
    assert files[0].name
    assert len(server.requests) == 1
    assert len(files) == 123
    assert len(server.requests) == 3
    assert [file.name for file in files[1:3]] == [files[1].name, files[2].name]
    assert files[-1].name == list(files)[-1].name
    assert len(server.requests) == 3, "nothing is asked for twice"


def test_names_and_patterns_choose(run: Run):
    assert [file.name for file in run.files(names=["model.bin"])] == ["model.bin"]
    assert {file.name for file in run.files(pattern="part00%.json")} == {
        f"part00{digit}.json" for digit in range(10)
    }
    with pytest.raises(InvalidRequest, match="not both"):
        run.files(names=["a"], pattern="%")


def test_a_list_that_failed_starts_again(run: Run, server: DevServer):
    files = run.files()
    server.faults.add(Fault(Matcher(operation="RunFiles"), Responder.reset()))
    with pytest.raises(ConnectionFailed):
        len(files)
    assert len(files) == 123


def test_a_download_tells_how_far_it_is(run: Run, tmp_path: Path):
    told: list[tuple[int, int]] = []
    file = run.file("model.bin")
    file.download(tmp_path, progress=lambda received, size: told.append((received, size))).close()
    assert told[-1] == (1_024_000, 1_024_000)
    assert [received for received, _ in told] == sorted({received for received, _ in told})
    assert (tmp_path / "model.bin").read_bytes() == bytes(range(256)) * 4000
    assert file.read() == bytes(range(256)) * 4000


def test_a_download_is_opened_as_text_in_its_folder(run: Run, tmp_path: Path):
    with run.file("media/größe 1.txt").download(tmp_path) as opened:
        assert (opened.read(), opened.name) == ("grüße", str(tmp_path / "media/größe 1.txt"))
    with run.file("empty").download(tmp_path) as opened:
        assert opened.read() == ""


def test_a_file_that_exists_is_asked_about(run: Run, tmp_path: Path):
    (tmp_path / "empty").write_text("mine")
    file = run.file("empty")
    with pytest.raises(InvalidRequest, match="replace=True"):
        file.download(tmp_path)
    with file.download(tmp_path, exist_ok=True) as opened:
        assert opened.read() == "mine"
    with file.download(tmp_path, replace=True) as opened:
        assert opened.read() == ""


@pytest.mark.parametrize(
    "responder",
    [Responder.cut_body(), Responder.reset(), Responder(status=200, body="short"),
     Responder(status=None, keep_bytes=1000)],
    ids=["cut", "reset", "short", "truncated"],
)  # fmt: skip
def test_what_did_not_arrive_whole_is_not_there(
    run: Run, server: DevServer, tmp_path: Path, responder: Responder
):
    file = run.file("model.bin")
    server.faults.add(Fault(GET, responder))
    with pytest.raises((MalformedResponse, ConnectionFailed)):
        file.download(tmp_path)
    assert left_in(tmp_path) == []
    file.download(tmp_path).close()
    assert left_in(tmp_path) == ["model.bin"]


def test_a_replacement_that_breaks_leaves_the_old_file(run: Run, server: DevServer, tmp_path: Path):
    (tmp_path / "model.bin").write_text("old")
    server.faults.add(Fault(GET, Responder.cut_body()))
    with pytest.raises(MalformedResponse):
        run.file("model.bin").download(tmp_path, replace=True)
    assert (tmp_path / "model.bin").read_text() == "old"


@pytest.mark.parametrize(
    "name",
    ["../x", "a/../../x", "/etc/x", "..\\x", "C:\\x", "C:x", "a//b", "a/./b", "", "nul\0", ".."],
)
def test_a_name_that_leads_out_is_refused(run: Run, tmp_path: Path, name: str):
    file = replace(run.file("empty"), name=name)
    with pytest.raises(InvalidRequest, match="leave the folder"):
        file.download(tmp_path / "in")
    assert left_in(tmp_path) == []


def test_a_link_that_leads_out_is_refused(run: Run, tmp_path: Path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "media").symlink_to(tmp_path)
    with pytest.raises(InvalidRequest, match="link"):
        run.file("media/größe 1.txt").download(tmp_path / "in")
    assert left_in(tmp_path) == []


def test_a_file_that_went_away_is_not_found(run: Run, server: DevServer, tmp_path: Path):
    file = run.file("empty")
    server.faults.add(Fault(GET, Responder.error(404)))
    with pytest.raises(NotFound):
        file.download(tmp_path)
