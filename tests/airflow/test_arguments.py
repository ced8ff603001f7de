"""What templates make of arguments, read back."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from wb_ops.errors import InvalidRequest


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, None),
        ("", None),
        (datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)),
        ("2026-01-01T00:00:00Z", datetime(2026, 1, 1, tzinfo=UTC)),
        (" 2026-01-01T01:00:00+01:00 ", datetime(2026, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_moment_is_a_datetime_or_iso_text(given: Any, expected: datetime | None) -> None:
    """Empty text is what a template makes of nothing."""
    from wb_ops.airflow.operators.arguments import parse_moment

    assert parse_moment("since", given) == expected


def test_a_wrong_moment_names_the_remedy() -> None:
    """The text None comes from a template without a default."""
    from wb_ops.airflow.operators.arguments import parse_moment

    with pytest.raises(InvalidRequest, match=r"since='None' .* default\(''"):
        parse_moment("since", "None")


@pytest.mark.parametrize("given", [True, "True", "true", " TRUE "])
def test_a_flag_is_a_bool_or_its_text(given: Any) -> None:
    """`{{ params.dry_run }}` renders to True or False."""
    from wb_ops.airflow.operators.arguments import parse_flag

    assert parse_flag("dry_run", given) is True
    assert parse_flag("dry_run", "False") is False


@pytest.mark.parametrize("given", ["", "yes", "1", "None"])
def test_other_text_is_no_flag(given: str) -> None:
    """A flag that guards writes is never guessed."""
    from wb_ops.airflow.operators.arguments import parse_flag

    with pytest.raises(InvalidRequest, match="give true or false"):
        parse_flag("dry_run", given)


@pytest.mark.parametrize("given", [3, "3", " 3 "])
def test_a_count_is_a_number_or_its_text(given: Any) -> None:
    """Nothing and empty text are no count."""
    from wb_ops.airflow.operators.arguments import parse_count

    assert parse_count("max_runs", given, 1) == 3
    assert parse_count("max_runs", None, 1) is parse_count("max_runs", " ", 1) is None


@pytest.mark.parametrize("given", [0, "0", "-1", "1.5", "None", True])
def test_anything_else_is_no_count(given: Any) -> None:
    """The error names the argument and the least."""
    from wb_ops.airflow.operators.arguments import parse_count

    with pytest.raises(InvalidRequest, match=r"max_runs=.*: give a whole number, 1 or more"):
        parse_count("max_runs", given, 1)


@pytest.mark.parametrize("given", [{"a": 1}, '{"a": 1}'])
def test_filters_are_a_dict_or_its_json(given: Any) -> None:
    """Nothing and empty text are no filters."""
    from wb_ops.airflow.operators.arguments import parse_filters

    assert parse_filters(given) == {"a": 1}
    assert parse_filters(None) == parse_filters(" ") == {}


@pytest.mark.parametrize("given", [["a", "b"], ("a", "b"), '["a", "b"]'])
def test_names_are_a_list_or_its_json(given: Any) -> None:
    """Nothing and empty text are no choice; an empty list is one."""
    from wb_ops.airflow.operators.arguments import parse_names

    assert parse_names("keys", given) == ("a", "b")
    assert parse_names("keys", None) is parse_names("keys", "") is None
    assert parse_names("tables", "[]") == ()


@pytest.mark.parametrize("given", ["loss", '"loss"', [1], {"a": 1}])
@pytest.mark.parametrize("name", ["keys", "tables", "states", "run_ids"])
def test_a_single_name_is_not_taken_for_its_letters(name: str, given: Any) -> None:
    """tuple("loss") would be four keys; the error names the argument."""
    from wb_ops.airflow.operators.arguments import parse_names

    with pytest.raises(InvalidRequest, match=f"{name}="):
        parse_names(name, given)
