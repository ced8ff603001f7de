"""Users: who the key belongs to, who started a run, who owns a project."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class User:
    """An account of W&B, as far as the key may see it; what was not selected is None or empty.

    Attributes:
        entity: the entity that the account's paths without one belong to.
        teams: names of the teams that the account is in.
        deleted_at: when the account was removed, as W&B writes times (UTC).
    """

    username: str | None
    name: str | None = None
    id: str | None = None
    entity: str | None = None
    email: str | None = None
    admin: bool | None = None
    teams: tuple[str, ...] = ()
    deleted_at: str | None = None


def user_of(node: Mapping[str, Any] | None) -> User | None:
    """The user of a GraphQL answer; None for an account that no longer exists."""
    if node is None:
        return None
    edges = (node.get("teams") or {}).get("edges") or []
    plain = ("username", "name", "id", "entity", "email", "admin")
    return User(
        **{name: node.get(name) for name in plain},
        teams=tuple(edge["node"]["name"] for edge in edges if edge and edge.get("node")),
        deleted_at=node.get("deletedAt"),
    )
