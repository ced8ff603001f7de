"""Sends edits of several runs in one request, and says what they replaced."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wb_ops.backfill.targets import Edit, Target, change_of
from wb_ops.client.source import Node, RunSource
from wb_ops.client.writing import send_changes
from wb_ops.errors import (
    CommError,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    PermissionDenied,
)

log = logging.getLogger("wb_ops")

_GRAPHQL_ERRORS = 200


@dataclass(slots=True)
class Writer:
    """What all batches of a backfill share.

    `watches` ends where the server refuses to say what a write replaces.
    """

    source: RunSource
    target: Target
    include_running: bool = False
    is_resumed: bool = False
    watches: bool = True

    def send(
        self, base: Mapping[str, Node], edits: Mapping[str, Edit]
    ) -> tuple[dict[str, dict[str, Any]], CommError | None]:
        """Send the edits; what they replaced, and an error after which reading tells more."""
        changes = [
            change_of(run_id, self.target, edit, base[run_id]) for run_id, edit in edits.items()
        ]
        source, watches = self.source, self.watches
        try:
            return send_changes(source.transport, source, changes, base, watch=watches), None
        except OutcomeUnknown as error:
            log.warning("%s; reading back to see what was written", error)
            return {}, error
        except NotFound as error:
            log.warning("%s; a run was deleted just now, the others may be written", error)
            return {}, None
        except (InvalidRequest, PermissionDenied) as error:
            if isinstance(error, InvalidRequest) and watches:
                log.info("%s; writing without asking what is replaced", error)
                self.watches = False
                return {}, None
            if error.http_status != _GRAPHQL_ERRORS:
                raise
            return {}, error
