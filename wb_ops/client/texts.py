"""Values that a program gives; a single text is never taken for a list of its letters."""

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


def check_type(name: str, value: object, types: tuple[type, ...], wanted: str) -> None:
    """Refuse a value of another type; True and False are no numbers.

    Raises:
        InvalidRequest: it is of none of these types (retry: never).
    """
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        raise InvalidRequest(f"{name}={value!r}: give {wanted}.")
