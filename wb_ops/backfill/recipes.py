"""Ready-made functions of a run's full history: the best value, and what else held there.

A recipe goes where `compute=` is taken. Rows are those of `run.history_table()`: unsampled, one
a step. NaN is no extreme; an infinity can be one; of equal values the first step counts. A metric
that a run never logged gives no value, and the plan says so.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

from wb_ops.errors import InvalidRequest

if TYPE_CHECKING:
    import pyarrow as pa

    from wb_ops.client.runs import Run

Mode = Literal["max", "min"]
Rows = Sequence[Mapping[str, object]]
Pick = Callable[[Rows], object]


@dataclass(frozen=True, slots=True)
class Recipe:
    """A function of the run: reads the metrics in `reads`, gives the keys in `writes`."""

    reads: tuple[str, ...]
    picks: Mapping[str, Pick] = field(repr=False)

    @property
    def writes(self) -> tuple[str, ...]:
        """The keys that it writes."""
        return tuple(self.picks)

    def __call__(self, run: Run) -> dict[str, object]:
        """Read the run's history and compute the values; None where there is none."""
        return self.of_history(run.history_table(keys=self.reads))

    def __and__(self, other: Recipe) -> Recipe:
        """Both, from one reading of the history."""
        if twice := sorted(set(self.picks) & set(other.picks)):
            raise InvalidRequest(f"Two recipes write {', '.join(twice)}: rename one with into=.")
        reads = tuple(dict.fromkeys((*self.reads, *other.reads)))
        return Recipe(reads, {**self.picks, **other.picks})

    def of_history(self, table: pa.Table) -> dict[str, object]:
        """Compute the values from a history with one row a step, in the order of steps."""
        from wb_ops.tables.history import to_rows

        rows = to_rows(table)
        return {key: pick(rows) for key, pick in self.picks.items()}


def best(
    metric: str, mode: Mode = "max", also: Sequence[str] | str = (), into: str | None = None
) -> Recipe:
    """The best value of a metric, its step, and what the metrics in `also` were at that step.

    Writes `best_<metric>`, `best_<metric>_step`, and `<other>_at_best_<metric>`.
    """
    name = into or f"best_{metric}"
    others = (also,) if isinstance(also, str) else tuple(also)
    recipe = _extreme(metric, mode, name) & _step_of(metric, mode, f"{name}_step")
    for other in others:
        recipe &= at_best(other, of=metric, mode=mode, into=f"{other}_at_{name}")
    return recipe


def max_of(metric: str, into: str | None = None) -> Recipe:
    """The largest value of a metric, as `max_<metric>`."""
    return _extreme(metric, "max", into or f"max_{metric}")


def min_of(metric: str, into: str | None = None) -> Recipe:
    """The smallest value of a metric, as `min_<metric>`."""
    return _extreme(metric, "min", into or f"min_{metric}")


def argmax(metric: str, into: str | None = None) -> Recipe:
    """The step of the largest value, as `argmax_<metric>`."""
    return _step_of(metric, "max", into or f"argmax_{metric}")


def argmin(metric: str, into: str | None = None) -> Recipe:
    """The step of the smallest value, as `argmin_<metric>`."""
    return _step_of(metric, "min", into or f"argmin_{metric}")


def first(metric: str, into: str | None = None) -> Recipe:
    """The value that was logged first, NaN included, as `first_<metric>`."""
    return Recipe((metric,), {into or f"first_{metric}": lambda rows: _logged(rows, metric, 0)})


def last(metric: str, into: str | None = None) -> Recipe:
    """The value that was logged last, NaN included, as `last_<metric>`."""
    return Recipe((metric,), {into or f"last_{metric}": lambda rows: _logged(rows, metric, -1)})


def at_best(metric: str, of: str, mode: Mode = "max", into: str | None = None) -> Recipe:
    """What a metric was at the step at which `of` was best, as `<metric>_at_best_<of>`."""
    _check_mode(mode)

    def pick(rows: Rows) -> object:
        row = _best_row(rows, of, mode)
        return None if row is None else row.get(metric)

    return Recipe((of, metric), {into or f"{metric}_at_best_{of}": pick})


def parse_recipe(text: str) -> Recipe:
    """Read a recipe as it is written in Python: `best("val_acc", mode="max", also=["loss"])`.

    Nothing is evaluated but strings and lists of strings.

    Raises:
        InvalidRequest: it is no call of a recipe (retry: never).
    """
    try:
        call = ast.parse(text.strip(), mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise ValueError("no call")
        arguments = [ast.literal_eval(argument) for argument in call.args]
        named = {keyword.arg or "**": ast.literal_eval(keyword.value) for keyword in call.keywords}
        return RECIPES[call.func.id](*arguments, **named)
    except (ValueError, SyntaxError, TypeError, KeyError) as exc:
        raise InvalidRequest(
            f"{text!r} is no recipe ({exc}): give one of {', '.join(RECIPES)}, such as "
            'best("val_acc", mode="max", also=["loss"]).'
        ) from exc


RECIPES: dict[str, Callable[..., Recipe]] = {
    recipe.__name__: recipe
    for recipe in (best, max_of, min_of, argmax, argmin, first, last, at_best)
}


def _extreme(metric: str, mode: Mode, into: str) -> Recipe:
    _check_mode(mode)

    def pick(rows: Rows) -> object:
        row = _best_row(rows, metric, mode)
        return None if row is None else row[metric]

    return Recipe((metric,), {into: pick})


def _step_of(metric: str, mode: Mode, into: str) -> Recipe:
    _check_mode(mode)

    def pick(rows: Rows) -> object:
        row = _best_row(rows, metric, mode)
        return None if row is None else row["_step"]

    return Recipe((metric,), {into: pick})


def _best_row(rows: Rows, metric: str, mode: Mode) -> Mapping[str, object] | None:
    numbered = [(row, number) for row in rows if (number := _number(row.get(metric))) is not None]
    choose = max if mode == "max" else min
    return choose(numbered, key=lambda pair: pair[1])[0] if numbered else None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        return None
    return value


def _logged(rows: Rows, metric: str, at: int) -> object:
    values = [row[metric] for row in rows if metric in row]
    return values[at] if values else None


def _check_mode(mode: str) -> None:
    if mode not in get_args(Mode):
        raise InvalidRequest(f"mode={mode!r}: give max or min.")
