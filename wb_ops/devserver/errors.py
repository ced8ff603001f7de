"""Answers that are errors, as the service words them."""

from __future__ import annotations


class StatusError(Exception):
    """A refusal with an HTTP status; the body is ``{"errors": [{"message": …}]}``."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message

    def to_json(self) -> dict[str, object]:
        """The answer's body."""
        return {"errors": [{"message": self.message}], "data": None}


def not_logged_in() -> StatusError:
    """The credential is absent, malformed or unknown."""
    return StatusError(401, "user is not logged in")


def permission_denied() -> StatusError:
    """The account may not do this."""
    return StatusError(403, "permission denied")


def not_found(what: str) -> StatusError:
    """The thing that a mutation or a file request names does not exist."""
    return StatusError(404, f"{what} not found")
