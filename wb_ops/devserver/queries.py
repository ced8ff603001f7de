"""Resolvers of ``Query`` and ``Project``."""

from __future__ import annotations

import sqlite3
from typing import cast

from graphql import GraphQLResolveInfo

from wb_ops.devserver.backend import FEATURES, RequestContext
from wb_ops.devserver.listing import Page, connection, fresh_cursor
from wb_ops.devserver.nodes import Node, project_node, run_node, viewer_node

DEFAULT_PROJECT = "uncategorized"


def context_of(info: GraphQLResolveInfo) -> RequestContext:
    """The request's context."""
    return cast(RequestContext, info.context)


def row_of(node: Node) -> sqlite3.Row:
    """The row behind a project or run node."""
    return cast(sqlite3.Row, node["_row"])


def viewer(_source: object, info: GraphQLResolveInfo) -> Node | None:
    """The account that asks, null for a key that nobody owns."""
    account = context_of(info).account
    return None if account is None else viewer_node(account)


def server_info(_source: object, info: GraphQLResolveInfo) -> Node:
    """The features that this server has."""
    enabled = context_of(info).backend.options.features
    names = sorted({*FEATURES, *enabled})
    return {"features": [{"name": name, "isEnabled": name in enabled} for name in names]}


def entity(_source: object, _info: GraphQLResolveInfo, name: str | None = None) -> Node | None:
    """An entity; every name is one."""
    return None if name is None else {"id": f"Entity:{name}", "name": name}


def project(
    _source: object,
    info: GraphQLResolveInfo,
    name: str | None = None,
    entityName: str | None = None,
) -> Node | None:
    """A project, null where there is none."""
    context = context_of(info)
    row = context.backend.store.find_project(
        entityName or context.signed_in.default_entity, name or DEFAULT_PROJECT
    )
    return None if row is None else project_node(row)


def models(
    _source: object,
    info: GraphQLResolveInfo,
    entityName: str | None = None,
    after: str | None = None,
    first: int | None = None,
) -> Node:
    """An entity's projects in pages."""
    context = context_of(info)
    rows = context.backend.store.list_projects(entityName or context.signed_in.default_entity)
    return connection(rows, project_node, first, after)


def run_count(source: Node, info: GraphQLResolveInfo, filters: str | None = None) -> int:
    """How many runs match, whatever page is read."""
    return len(context_of(info).backend.listing.list_pks(row_of(source), filters, None))


def runs(
    source: Node,
    info: GraphQLResolveInfo,
    filters: str | None = None,
    after: str | None = None,
    first: int | None = None,
    order: str | None = None,
) -> Node:
    """A page of runs."""
    context = context_of(info)
    page = context.backend.listing.page(row_of(source), filters, order, first, after)
    if "empty_page" in context.quirks:
        return _connection(context, Page([], [], fresh_cursor(after), True, page.total))
    found = _connection(context, page)
    if "same_cursor" in context.quirks and after is not None:
        _repeat_cursor(found, after)
    return found


def _connection(context: RequestContext, page: Page) -> Node:
    rows = context.backend.store.load_runs(list(page.pks))
    edges = [
        {"node": run_node(row, context), "cursor": cursor}
        for row, cursor in zip(rows, page.cursors, strict=False)
    ]
    return {
        "totalCount": page.total,
        "edges": edges,
        "pageInfo": {"endCursor": page.end_cursor, "hasNextPage": page.has_next_page},
    }


def _repeat_cursor(found: Node, cursor: str) -> None:
    found["pageInfo"] = {"endCursor": cursor, "hasNextPage": True}
    edges = cast(list[Node], found["edges"])
    for edge in edges[-1:]:
        edge["cursor"] = cursor


def run(source: Node, info: GraphQLResolveInfo, name: str) -> Node | None:
    """A run of the project, null where there is none."""
    row, context = row_of(source), context_of(info)
    found = context.backend.store.find_run(row["entity"], row["name"], name)
    return None if found is None else run_node(found, context)


def bucket(
    source: Node,
    info: GraphQLResolveInfo,
    name: str,
    missingOk: bool | None = None,
) -> Node | None:
    """The older name of :func:`run`; here a missing run is always acceptable."""
    return run(source, info, name)
