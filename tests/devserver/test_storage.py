"""The storage origin: signed, expiring, and strict about credentials."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from wb_ops.devserver import DevServer

SELECTION = 'parquetHistory(liveKeys: ["_step"]) {parquetUrls}'


@pytest.fixture
def url(server: DevServer, client: Any) -> str:
    server.seed_run("ann", "p", "r1", history=[{"x": 1}])
    return client.run("ann/p/r1", SELECTION)["parquetHistory"]["parquetUrls"][0]


def test_exports_live_on_another_origin(server: DevServer, url: str) -> None:
    assert url.startswith(server.storage_url + "/")
    assert server.storage_url != server.url


def test_get_head_and_ranges_agree(url: str) -> None:
    whole = requests.get(url, timeout=30)
    head = requests.head(url, timeout=30)
    assert int(head.headers["content-length"]) == len(whole.content)
    for wanted, expected in [
        ("bytes=0-0", whole.content[:1]),
        ("bytes=-8", whole.content[-8:]),
        ("bytes=4-", whole.content[4:]),
    ]:
        part = requests.get(url, headers={"Range": wanted}, timeout=30)
        assert part.status_code == 206
        assert part.content == expected
    size = len(whole.content)
    part = requests.get(url, headers={"Range": "bytes=0-0"}, timeout=30)
    assert part.headers["content-range"] == f"bytes 0-0/{size}"
    beyond = requests.get(url, headers={"Range": f"bytes={size + 9}-"}, timeout=30)
    assert beyond.status_code == 416


def test_an_authorization_header_is_refused(server: DevServer, url: str) -> None:
    assert requests.get(url, auth=("api", server.api_key), timeout=30).status_code == 400
    assert server.requests[-1].authorization is not None


@pytest.mark.parametrize("spoil", ["{}0", "{}&X-Expires=1", "{}x"])
def test_a_changed_signature_is_refused(url: str, spoil: str) -> None:
    assert requests.get(spoil.format(url), timeout=30).status_code == 403


def test_a_signature_holds_for_its_own_path_and_method_only(server: DevServer, url: str) -> None:
    path, query = url.split("?")
    assert requests.get(f"{path}x?{query}", timeout=30).status_code == 403
    assert requests.put(url, data=b"x", timeout=30).status_code == 405


def test_urls_expire() -> None:
    with DevServer(url_ttl_s=-1) as server:
        server.seed_run("dev", "p", "r1", history=[{"x": 1}])
        document = f'{{project(name: "p") {{run(name: "r1") {{{SELECTION}}}}}}}'
        answer = requests.post(
            f"{server.url}/graphql",
            json={"query": document},
            auth=("api", server.api_key),
            timeout=30,
        ).json()
        [url] = answer["data"]["project"]["run"]["parquetHistory"]["parquetUrls"]
        refused = requests.get(url, timeout=30)
    assert refused.status_code == 403
    assert "expired" in refused.text


def test_an_upload_is_readable_from_both_origins(server: DevServer, client: Any) -> None:
    server.seed_run("ann", "p", "r1")
    target = client.data(
        'mutation C {createRunFiles(input: {entityName: "ann", projectName: "p", runName: "r1", '
        'files: ["media/a b.txt"]}) {runID files {name uploadUrl}}}'
    )["createRunFiles"]["files"][0]
    assert requests.put(target["uploadUrl"], data=b"content", timeout=30).status_code == 200
    node = client.run("ann/p/r1", "files {edges {node {url directUrl}}}")["files"]["edges"][0][
        "node"
    ]
    with_key = requests.get(node["url"], auth=("api", server.api_key), timeout=30)
    assert with_key.content == b"content"
    assert requests.get(node["url"], timeout=30).status_code == 401
    assert requests.get(node["directUrl"], timeout=30).content == b"content"
