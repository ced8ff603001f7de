"""Plans that nobody commits stay in their folders: this deletes the old ones."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from wb_ops.errors import InvalidRequest
from wb_ops.export.draft import CONTINUED_FOR, LISTING
from wb_ops.export.folder import open_folder
from wb_ops.export.planned import PLAN

_PLAN_ID = re.compile(r"\d{8}T\d{6}-[0-9a-f]{8}")


def delete_old_plans(staging: str, *, older_than: timedelta) -> list[str]:
    """Delete the plans below a path or URL that were made longer ago, committed or not.

    Gives their ids. Only folders that are named like a plan and hold one are touched. A plan that
    is deleted can neither be executed nor committed any more: choose an age that no plan reaches.

    Raises:
        InvalidRequest: `older_than` is less than the day in which a plan is continued (retry:
            never).
        WarehouseError: the folder cannot be read or written.
    """
    if older_than < CONTINUED_FOR:
        raise InvalidRequest(
            f"older_than={older_than}: a plan is continued for {CONTINUED_FOR}; give that or more."
        )
    paths = (name.partition("/") for name in open_folder(staging).list_names())
    plans = sorted({plan_id for plan_id, _, file in paths if file in (PLAN, LISTING)})
    limit = datetime.now(UTC) - older_than
    old = [one for one in plans if _PLAN_ID.fullmatch(one) and _made_at(one) < limit]
    for plan_id in old:
        open_folder(f"{staging.rstrip('/')}/{plan_id}").remove()
    return old


def _made_at(plan_id: str) -> datetime:
    return datetime.strptime(plan_id.split("-")[0], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
