"""What looks like a secret is found, named by its place, and taken out on request."""

from __future__ import annotations

import json

import pytest

from wb_ops.tables.secrets import REDACTED, redacted, suspect_paths

# Put together here, so that no scanner takes this file for a leak.
HEX = "0123456789abcdef" * 2 + "01234567"
SECRETS = {
    "wandb": "wandb_v1_" + "Ab1" * 12,
    "aws": "AKIA" + "ABCDEFGHIJKLMNOP",
    "github": "ghp_" + "a1B2" * 9,
    "github_fine": "github_pat_" + "a1B2" * 9,
    "gitlab": "glpat-" + "a1B2" * 5,
    "hugging_face": "hf_" + "aB" * 17,
    "openai": "sk-" + "proj-" + "a1B2" * 10,
    "slack": "xoxb-" + "1234567890-abcdef",
    "google": "AIza" + "a1B2_" * 7,
    "jwt": "eyJhbGciOiJIUzI1NiJ9" + ".eyJzdWIiOiIxMjM0NTY3ODkwIn0" + ".abc",
    "key": "-----BEGIN RSA PRIVATE KEY-----\nabc",
    "url": "postgresql://ann:" + "pass@db.example.com/x",
}
HARMLESS = [
    "bert-base-uncased", "<|endoftext|>", HEX, "s3://bucket/path", "https://example.com/a@b",
    "sk-learn", "2026-01-01T00:00:00", "hf_hub", "AKIA", "task-0123456789", "risk-abcdefghijklmnop",
]  # fmt: skip


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
def test_a_secret_is_found_wherever_it_stands(secret: str):
    document = {"deep": {"value": {"list": ["x", f"see {secret}"]}}, "loss": 1}
    assert suspect_paths(json.dumps(document), "/config") == ["/config/deep/value/list/1"]
    cleaned = redacted(document)
    assert secret not in json.dumps(cleaned)
    assert cleaned == {"deep": {"value": {"list": ["x", REDACTED]}}, "loss": 1}


@pytest.mark.parametrize("name", ["api_key", "WANDB_API_KEY", "aws_secret_access_key", "auth"])
def test_a_bare_key_is_found_by_its_name(name: str):
    document = {name: {"value": HEX}}
    assert suspect_paths(json.dumps(document), "/config") == [f"/config/{name}/value"]
    assert redacted(document) == {name: {"value": REDACTED}}


@pytest.mark.parametrize("text", HARMLESS)
def test_what_only_looks_like_one_is_left(text: str):
    document = {"commit": text, "sha": text}
    assert suspect_paths(json.dumps(document), "/config") == []
    assert redacted(document) == document


@pytest.mark.parametrize(
    ("name", "text"),
    [("pad_token", "<|endoftext|>"), ("tokenizer", "bert-base-uncased"), ("author", "Ann Smith")],
)
def test_a_name_alone_accuses_nobody(name: str, text: str):
    assert suspect_paths(json.dumps({name: text}), "/config") == []


def test_a_secret_that_is_a_name_is_not_told():
    secret = SECRETS["github"]
    assert suspect_paths(json.dumps({secret: 1}), "/summary") == [f"/summary/{REDACTED}"]
    assert redacted({secret: 1}) == {REDACTED: 1}


@pytest.mark.parametrize("text", [None, "", "{broken sk-" + "a1B2" * 10])
def test_what_is_no_document_has_none(text: str | None):
    assert suspect_paths(text, "/config") == []
