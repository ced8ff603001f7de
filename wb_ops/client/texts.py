"""Lists of texts that a program gives; a single text is never taken for a list of its letters."""

from __future__ import annotations

from collections.abc import Iterable

from wb_ops.errors import InvalidRequest


def texts_of(name: str, values: object) -> tuple[str, ...]:
    """Return what was given as `name`, a list of texts.

    Raises:
        InvalidRequest: it is a single text, no list, or a member is no text (retry: never).
    """
    if isinstance(values, str) or not isinstance(values, Iterable):
        example = [] if values is None else [str(values)]
        raise InvalidRequest(f"{name}={values!r}: give a list, such as {example}.")
    texts = tuple(values)
    for text in texts:
        if not isinstance(text, str):
            raise InvalidRequest(
                f"{name} has {text!r}: give a list of texts, such as [{str(text)!r}]."
            )
    return texts
