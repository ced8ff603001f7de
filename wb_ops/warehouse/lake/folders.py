"""The folder of a dataset: its name, with what no path or URL should hold written as ~XX."""

from __future__ import annotations

import re

_ESCAPED = re.compile(r"~([0-9a-f]{2})")
_PLAIN = re.compile(r"[A-Za-z0-9_-]")


def folder_of(dataset: str) -> str:
    """Give the folder of a dataset: `a b` -> `a~20b`; most names are their own folder."""
    characters = [
        one if _PLAIN.match(one) else "".join(f"~{byte:02x}" for byte in one.encode())
        for one in dataset
    ]
    return "".join(characters)


def dataset_of(folder: str) -> str:
    """The dataset that a folder is named after."""
    data = _ESCAPED.sub(lambda found: chr(int(found[1], 16)), folder)
    return data.encode("latin-1").decode("utf-8", "replace")
