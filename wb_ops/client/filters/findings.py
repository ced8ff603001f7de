"""What the check of a filter finds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How bad a finding is."""

    ERROR = "error"  # the server refuses it, or it can never mean what it says
    WARNING = "warning"  # it is taken, and probably finds other runs than meant


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with a filter.

    Attributes:
        severity: errors are refused by `require_valid`; warnings are sent as they are.
        path: where it is, as Python would index it: `filters['$and'][0]['config.lr']`.
        message: what is wrong and what to write instead.
    """

    severity: Severity
    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.path}: {self.message}"


def error(path: str, message: str) -> Finding:
    """A finding that `require_valid` refuses."""
    return Finding(Severity.ERROR, path, message)


def warning(path: str, message: str) -> Finding:
    """A finding that is sent as it is."""
    return Finding(Severity.WARNING, path, message)
