"""Takes the pictures of docs/screens/dagster-*.png from a real browser and a real Dagster.

    python docs/screens/dagster.py

The models of the demo are trained and logged by the W&B SDK to a dev server; Dagster exports them,
computes best_val_acc and writes it back. Then the key is taken away, and the export fails. Nothing
is left running. Not part of CI. It must not import dagster: that would be this file.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from browser import browser_page, end, free_port, wait_for
from playwright.sync_api import Page, ViewportSize

from demo.train import main as train
from wb_ops.devserver import DevServer

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
ENTITY, PROJECT = "vision", "digits"
PLACE = {"repositoryLocationName": "dagster_defs.definitions", "repositoryName": "__repository__"}
SIZE: ViewportSize = {"width": 1280, "height": 1000}
# Paths of this checkout and of temporary folders are of no interest to others.
SHORTEN = """(roots) => {
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        for (const root of roots) {
            walker.currentNode.data = walker.currentNode.data.replaceAll(root, "");
        }
    }
}"""

# The curves open in a dialog amid a page that is dimmed. Beside short values both are seen.
UNDIM = "[class*=overlay-backdrop] { background: none !important; }"
MOVE_ASIDE = """(top) => {
    let box = [...document.querySelectorAll("button")].find((one) => one.textContent === "Close");
    while (box.parentElement.getBoundingClientRect().width < innerWidth) box = box.parentElement;
    const at = box.getBoundingClientRect();
    box.style.transform = `translate(${innerWidth - at.right - 24}px, ${top - at.top}px)`;
}"""


class Dagster:
    """`dagster dev` on the location to copy, in a folder, on a free port."""

    def __init__(self, folder: Path, server: DevServer) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.home = folder / "home"
        self.home.mkdir()
        instance = (ROOT / "dagster_defs" / "dagster.yaml").read_text()
        # No invitation in front of the first page.
        (self.home / "dagster.yaml").write_text(instance + "nux: {enabled: false}\n")
        # Read at each step, so that it can be made wrong while Dagster runs.
        self.netrc = folder / "netrc"
        self.machine = server.url.removeprefix("http://")
        self.set_key(server.api_key)
        kept = {name: one for name, one in os.environ.items() if not name.startswith("WANDB_")}
        self.environment = {
            **kept,
            "DAGSTER_HOME": str(self.home),
            "DAGSTER_DISABLE_TELEMETRY": "true",
            "PYTHONPATH": str(ROOT),
            "NETRC": str(self.netrc),
            "WANDB_BASE_URL": server.url,
            "WB_OPS_ENTITY": ENTITY,
            "WB_OPS_PROJECT": PROJECT,
            "WB_OPS_WAREHOUSE": f"duckdb:///{folder / 'warehouse.duckdb'}",
            "WB_OPS_BEST_METRIC": "val_acc",
        }

    def set_key(self, key: str) -> None:
        """The key that the next steps find."""
        self.netrc.write_text(f"machine {self.machine} login user password {key}\n")
        self.netrc.chmod(0o600)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Start it; end it, and its children, afterwards."""
        command = [str(Path(sys.executable).parent / "dagster"), "dev", "-h", "127.0.0.1"]
        place = ["-p", str(self.port), "-m", PLACE["repositoryLocationName"]]
        with (self.home / "dev.log").open("wb") as log:
            process = subprocess.Popen(
                command + place, env=self.environment, cwd=self.home, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        try:
            wait_for(self.is_loaded)
            yield
        finally:
            end([process])

    def ask(self, document: str, **variables: Any) -> Any:
        """An answer of the GraphQL API that the UI uses."""
        body = {"query": document, "variables": variables}
        return requests.post(f"{self.url}/graphql", json=body, timeout=60).json()["data"]

    def is_loaded(self) -> bool:
        """Whether the code location is there."""
        document = "{ repositoriesOrError { ... on RepositoryConnection { nodes { name } } } }"
        return bool(self.ask(document)["repositoriesOrError"]["nodes"])

    def launch(self, job: str) -> tuple[str, str]:
        """Run a job to its end; returns the run's id and status."""
        mutation = """mutation($params: ExecutionParams!) { launchRun(executionParams: $params) {
            ... on LaunchRunSuccess { run { runId } } } }"""
        chosen = {"selector": {**PLACE, "jobName": job}, "runConfigData": {}}
        run_id = self.ask(mutation, params=chosen)["launchRun"]["run"]["runId"]
        document = "query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"

        def status() -> str:
            return str(self.ask(document, id=run_id)["runOrError"]["status"])

        wait_for(lambda: status() in ("SUCCESS", "FAILURE"))
        return run_id, status()


class Camera:
    """A page of the browser that saves what it shows."""

    def __init__(self, page: Page, dagster: Dagster) -> None:
        self.page = page
        self.dagster = dagster

    def open(self, path: str, text: str) -> None:
        """Go to a page and wait until it shows a text."""
        self.page.goto(f"{self.dagster.url}/{path}")
        self.page.get_by_text(text).first.wait_for()
        self.page.wait_for_timeout(2500)

    def shoot(self, name: str, **clip: float) -> None:
        """Save what is seen, or a part of it, without the place of this checkout."""
        self.page.evaluate(SHORTEN, [f"{ROOT}/", str(self.dagster.home.parent)])
        area: Any = {"clip": clip} if clip else {}
        self.page.screenshot(path=FOLDER / f"dagster-{name}.png", **area)
        print(f"docs/screens/dagster-{name}.png", flush=True)


def main() -> None:
    """Take all pictures."""
    folder = Path(tempfile.mkdtemp(prefix="wb_ops-screens-"))
    with DevServer() as server:
        log_runs(folder, server)
        dagster = Dagster(folder, server)
        with dagster.running(), browser_page() as page:
            page.set_viewport_size(SIZE)
            pictures(Camera(page, dagster))
    shutil.rmtree(folder)


def log_runs(folder: Path, server: DevServer) -> None:
    """Train the demo's models; the W&B SDK logs them."""
    settings = {
        "WANDB_BASE_URL": server.url,
        "WANDB_API_KEY": server.api_key,
        "WANDB_DIR": str(folder),
        "WANDB_SILENT": "true",
        "WANDB_ERROR_REPORTING": "false",
    }
    os.environ.update(settings)
    train(ENTITY, PROJECT)


def pictures(camera: Camera) -> None:
    """The graph, the page of an asset with its curves, and the facts of a step that failed."""
    dagster, dataset = camera.dagster, f"{ENTITY}__{PROJECT}"
    if dagster.launch("wandb_hourly")[1] != "SUCCESS":
        raise RuntimeError(f"the export failed: see {dagster.home}")
    camera.open("asset-groups/", "best_metrics")
    camera.shoot("graph", x=600, y=350, width=620, height=370)
    camera.open(f"assets/{dataset}/history?view=events", "wandb/curves")
    camera.page.set_viewport_size({"width": 1860, "height": 1130})
    camera.page.add_style_tag(content=UNDIM)
    camera.page.locator("tr", has_text="wandb/curves").get_by_text("Markdown").click()
    camera.page.wait_for_timeout(1500)
    row = camera.page.get_by_text("wandb/runs_written").bounding_box() or {}
    camera.page.evaluate(MOVE_ASIDE, row["y"])
    camera.shoot("asset", x=240, y=0, width=1620, height=1130)
    camera.page.set_viewport_size(SIZE)
    dagster.set_key("0" * 40)
    run_id, _ = dagster.launch("wandb_hourly")
    camera.open(f"runs/{run_id}?logs=step%3A{dataset}_export", "AuthenticationFailed")
    # The list of events cuts a long one off; this shows it whole, above the traceback.
    camera.page.get_by_text("View full message").first.click()
    last = camera.page.get_by_text("wandb/attempts").last
    last.wait_for()
    camera.page.wait_for_timeout(1500)
    box = last.bounding_box() or {}
    camera.shoot("failure", x=128, y=40, width=1024, height=box["y"] + box["height"] - 26)


if __name__ == "__main__":
    main()
