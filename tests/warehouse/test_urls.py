"""What in a URL is a secret."""

from __future__ import annotations

import pytest

from wb_ops.warehouse.urls import passwords_in


@pytest.mark.parametrize(
    ("text", "passwords"),
    [
        ("postgresql://ann:S3cret@host/db", {"S3cret"}),
        ("postgresql://ann:S3%2Fcret@host/db", {"S3%2Fcret", "S3/cret"}),
        ("postgresql://ann@corp:S3cret@host/db", {"S3cret"}),
        ("postgresql://ann@host/db?password=S3cret&x=y", {"S3cret"}),
        ("postgresql://ann@host/db?x=y&sslPassword=S3+cret", {"S3+cret"}),
        ("postgresql://ann@host/db?pass%77ord=S3cret", {"S3cret"}),
        ("parquet+s3://id:S3cret@bucket/folder", {"S3cret"}),
        ("postgresql://ann:S3/c?r#e@t@host/db", {"S3/c?r#e@t"}),
        ("postgresql://ann:S3 cret@host/db", {"S3 cret"}),
        ("postgresql://ann@host/db?password=S3 cret", {"S3 cret"}),
        ("to a://b:S3cret@c, d://e:F4cret@f", {"S3cret", "F4cret"}),
        ("copy into postgresql://ann:S3cret@host/db by me@host", {"S3cret"}),
    ],
)
def test_a_password_is_found_as_it_stands_and_unquoted(text: str, passwords: set[str]):
    assert passwords_in(text) == passwords


def test_a_password_that_can_be_read_in_two_ways_counts_in_both():
    assert passwords_in("pg://ann:S3cret@host/db?user=a@b") == {"S3cret", "S3cret@host/db?user=a"}


@pytest.mark.parametrize(
    "text",
    [
        "duckdb:////data/a:b@c.duckdb",
        "duckdb:////data/a@b.duckdb",
        "postgresql://ann@host:5432/db?sslmode=require&user=a@b",
        "postgresql://ann:@host/db",
        "postgresql://[::1]:5432/db?passfile=/home/ann/.pgpass",
        "parquet+s3://bucket/folder",
        "conn://wandb_warehouse",
        "at 10:30 ask ann@host",
    ],
)
def test_other_texts_have_none(text: str):
    assert passwords_in(text) == set()
