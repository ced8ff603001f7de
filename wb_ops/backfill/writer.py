"""Sends edits of several runs in one request, and says what they replaced."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wb_ops.backfill.targets import Edit, Target, change_of
from wb_ops.client.source import Node, RunSource
from wb_ops.client.writing import Change, check_watching, replaced_by, send_changes
from wb_ops.errors import (
    CommError,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    PermissionDenied,
)

log = logging.getLogger("wb_ops")

_GRAPHQL_ERRORS = 200
_CONFLICT = 409

Befores = dict[str, dict[str, Any]]


@dataclass(slots=True)
class Writer:
    """What all batches of a backfill share.

    `watches` ends where the server refuses to say what a write replaces; `can_watch` is set when
    it has said so once. `most` is how many runs the server was seen to take in one request.
    """

    source: RunSource
    target: Target
    include_running: bool = False
    is_resumed: bool = False
    watches: bool = True
    can_watch: bool = False
    most: int | None = None

    def send(
        self, base: Mapping[str, Node], edits: Mapping[str, Edit]
    ) -> tuple[Befores, CommError | None]:
        """Send the edits; what they replaced, and an error after which reading tells more."""
        changes = [
            change_of(run_id, self.target, edit, base[run_id], include_running=self.include_running)
            for run_id, edit in edits.items()
        ]
        return self._send_parts(base, changes, self.most or len(changes))

    def _send_parts(
        self, base: Mapping[str, Node], changes: Sequence[Change], most: int
    ) -> tuple[Befores, CommError | None]:
        before: Befores = {}
        first: CommError | None = None
        at = 0
        while at < len(changes):
            # A part may have found out that the server takes less.
            some = changes[at : at + min(most, self.most or most)]
            try:
                found, error = self._send(base, some)
            except CommError as raised:
                if at == 0:
                    raise
                # What was sent before it must be read, whatever this one says.
                return before, first or raised
            before |= found
            first = first or error
            at += len(some)
        return before, first

    def _send(
        self, base: Mapping[str, Node], changes: Sequence[Change]
    ) -> tuple[Befores, CommError | None]:
        source, watches = self.source, self.watches
        try:
            before = send_changes(source.transport, source, changes, base, watch=watches)
        except CommError as error:
            if watches and self._stops_watching(error, base[changes[0].run_id]):
                return {}, None
            if _is_of_the_form(error) and len(changes) > 1:
                return self._send_halves(base, changes, error)
            if not _is_told_by_reading(error):
                raise
            return _after(error, changes)
        self.can_watch = self.can_watch or watches
        return before, None

    def _send_halves(
        self, base: Mapping[str, Node], changes: Sequence[Change], refused: CommError
    ) -> tuple[Befores, CommError | None]:
        """Send what was refused as a whole: it is too much at a time, or one run is at fault."""
        half = len(changes) // 2
        log.warning("%s; writing to %d runs in a request", refused, half)
        before, error = self._send_parts(base, changes, half)
        if error is None:
            # No run was at fault.
            self.most = min(half, self.most or half)
        return before, error

    def _stops_watching(self, error: CommError, fresh: Node) -> bool:
        """Whether it is the asking that is refused, and not what was written; tried once."""
        if self.can_watch or is_of_one_run(error) or is_busy(error):
            return False
        if not isinstance(error, InvalidRequest):
            return False
        try:
            # One run: a server may also refuse to write to many at a time.
            check_watching(self.source.transport, self.source, [fresh])
        except InvalidRequest as refused:
            if is_busy(refused):
                return False
            log.warning("%s; writing without asking what is replaced", refused)
            self.watches = False
            return True
        self.can_watch = True
        return False


def is_busy(error: CommError) -> bool:
    """Whether the server refused a write because of another one: it is worth a fresh reading."""
    return error.http_status == _CONFLICT


def is_of_one_run(error: CommError) -> bool:
    """Whether nothing was sent, as a run was found running or read-only after a wait."""
    return isinstance(error, InvalidRequest | PermissionDenied) and error.http_status is None


def _is_of_the_form(error: CommError) -> bool:
    """Whether the request was refused as it stands, before anything in it was carried out.

    GraphQL says so by an answer without data: what a field refuses leaves those of the others.
    """
    if not isinstance(error, InvalidRequest) or error.http_status in (None, _CONFLICT):
        return False
    return error.http_status != _GRAPHQL_ERRORS or error.partial is None


def _is_told_by_reading(error: CommError) -> bool:
    if isinstance(error, OutcomeUnknown | NotFound) or is_busy(error):
        return True
    # Refused alone, a run is at fault, or all are: the others tell.
    if is_of_one_run(error) or _is_of_the_form(error):
        return True
    is_of_runs = isinstance(error, InvalidRequest | PermissionDenied)
    return is_of_runs and error.http_status == _GRAPHQL_ERRORS


def _after(error: CommError, changes: Sequence[Change]) -> tuple[Befores, CommError | None]:
    before = replaced_by(changes, error.partial)
    if isinstance(error, NotFound):
        log.warning("%s; a run was deleted just now, the others may be written", error)
        return before, None
    log.warning("%s; reading the runs again to see what was written", error)
    return before, error
