"""Runs GraphQL documents against the strict schema; what is unknown is an error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Any, cast

from graphql import (
    DocumentNode,
    ExecutionContext,
    FieldNode,
    GraphQLError,
    GraphQLList,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLResolveInfo,
    GraphQLSchema,
    OperationDefinitionNode,
    OperationType,
    build_schema,
    execute_sync,
    get_named_type,
    is_leaf_type,
    is_list_type,
    parse,
    validate,
)
from graphql.pyutils import Path

from wb_ops.devserver import mutations, queries, run_fields, sweeps
from wb_ops.devserver.backend import RequestContext
from wb_ops.devserver.errors import StatusError, not_logged_in, permission_denied
from wb_ops.devserver.filters import FilterRefusedError, FilterServerError

Answer = tuple[int, dict[str, object]]
_OPEN_FIELDS = frozenset({"viewer", "serverInfo", "__typename"})

_RESOLVERS: dict[str, dict[str, Callable[..., object]]] = {
    "Query": {
        "viewer": queries.viewer,
        "serverInfo": queries.server_info,
        "project": queries.project,
        "model": queries.project,
        "models": queries.models,
        "entity": queries.entity,
    },
    "Project": {
        "runCount": queries.run_count,
        "runs": queries.runs,
        "run": queries.run,
        "bucket": queries.bucket,
        "totalSweeps": sweeps.total_sweeps,
        "sweeps": sweeps.sweeps,
        "sweep": sweeps.sweep,
    },
    "Run": {
        "project": run_fields.project,
        "wandbConfig": run_fields.wandb_config,
        "historyTail": run_fields.history_tail,
        "eventsTail": run_fields.events_tail,
        "historyKeys": run_fields.history_keys,
        "history": run_fields.history,
        "sampledHistory": run_fields.sampled_history,
        "events": run_fields.events,
        "parquetHistory": run_fields.parquet_history,
        "logLines": run_fields.log_lines,
        "fileCount": run_fields.file_count,
        "files": run_fields.files,
    },
    "File": {"url": run_fields.file_url},
}
_MUTATIONS: dict[str, Callable[[RequestContext, mutations.Input], object]] = {
    "upsertBucket": mutations.upsert_bucket,
    "deleteRun": mutations.delete_run,
    "updateRunState": mutations.update_run_state,
    "stopRun": mutations.stop_run,
    "createRunFiles": mutations.create_run_files,
    "markRunFilesUploaded": mutations.mark_run_files_uploaded,
    "deleteFiles": mutations.delete_files,
}


def execute_document(
    context: RequestContext, text: str, variables: Mapping[str, object], name: str | None
) -> Answer:
    """Answer one request: an HTTP status and the body.

    A document that does not fit the schema is a 400; an error inside a resolver is a 200 with
    ``errors`` beside the data, unless the resolver asks for a status.
    """
    try:
        document = parse_document(text)
    except GraphQLError as error:
        return 400, {"errors": [error.formatted], "data": None}
    operation = _operation(document, name)
    if context.account is None and not _is_open(operation):
        return _refused(not_logged_in())
    if _is_mutation(operation) and context.signed_in.read_only:
        return _refused(permission_denied())
    invalid = _validate(text)
    if invalid:
        return 400, {"errors": [error.formatted for error in invalid], "data": None}
    return _execute(document, context, variables, name)


def operation_name(text: str, name: str | None) -> str | None:
    """The name of the operation, read from the document where the request gives none."""
    try:
        operation = _operation(parse_document(text), name)
    except GraphQLError:
        return name or None
    return operation.name.value if operation and operation.name else name or None


@lru_cache(maxsize=512)
def parse_document(text: str) -> DocumentNode:
    """Parse a document; the same text is parsed once.

    Raises:
        GraphQLError: the text is no GraphQL.
    """
    return parse(text)


@lru_cache(maxsize=512)
def _validate(text: str) -> tuple[GraphQLError, ...]:
    return tuple(validate(schema(), parse_document(text)))


@lru_cache(maxsize=1)
def schema() -> GraphQLSchema:
    """The schema with its resolvers."""
    built = build_schema(files(__package__).joinpath("schema.graphql").read_text())
    for type_name, resolvers in _RESOLVERS.items():
        for field_name, resolver in resolvers.items():
            _object_type(built, type_name).fields[field_name].resolve = resolver
    for field_name, mutation in _MUTATIONS.items():
        _object_type(built, "Mutation").fields[field_name].resolve = _with_input(mutation)
    return built


def _object_type(built: GraphQLSchema, name: str) -> GraphQLObjectType:
    return cast(GraphQLObjectType, built.type_map[name])


def _with_input(
    mutation: Callable[[RequestContext, mutations.Input], object],
) -> Callable[..., object]:
    def resolve(_source: object, info: GraphQLResolveInfo, **arguments: mutations.Input) -> object:
        return mutation(queries.context_of(info), arguments["input"])

    return resolve


@lru_cache(maxsize=1)
def _ready_fields() -> dict[str, frozenset[str]]:
    """For each type the leaves that a node's dict holds as they go on the wire."""
    return {
        name: frozenset(
            field_name
            for field_name, field in kind.fields.items()
            if field.resolve is None and is_leaf_type(get_named_type(field.type))
        )
        for name, kind in schema().type_map.items()
        if isinstance(kind, GraphQLObjectType)
    }


class _FastContext(ExecutionContext):
    """Takes leaves straight from the node; a page of 1,000 runs has 20,000 of them."""

    def execute_field(
        self,
        parent_type: GraphQLObjectType,
        source: Any,
        field_nodes: list[FieldNode],
        path: Path,
    ) -> Any:
        name = field_nodes[0].name.value
        if name in _ready_fields().get(parent_type.name, ()) and name in source:
            return source[name]
        return super().execute_field(parent_type, source, field_nodes, path)

    def complete_list_value(
        self,
        return_type: GraphQLList[GraphQLOutputType],
        field_nodes: list[FieldNode],
        info: GraphQLResolveInfo,
        path: Path,
        result: Any,
    ) -> Any:
        item_type = return_type.of_type
        if is_leaf_type(get_named_type(item_type)) and not is_list_type(item_type):
            return result
        return super().complete_list_value(return_type, field_nodes, info, path, result)


def _execute(
    document: DocumentNode,
    context: RequestContext,
    variables: Mapping[str, object],
    name: str | None,
) -> Answer:
    result = execute_sync(
        schema(),
        document,
        context_value=context,
        variable_values=dict(variables),
        operation_name=name or None,
        execution_context_class=_FastContext,
    )
    body: dict[str, object] = {"data": result.data}
    if not result.errors:
        return 200, body
    for error in result.errors:
        refusal = _status_of(error.original_error)
        if refusal is not None:
            return _refused(refusal)
    body["errors"] = [error.formatted for error in result.errors]
    return (400 if result.data is None and not result.errors[0].path else 200), body


def _status_of(error: Exception | None) -> StatusError | None:
    if isinstance(error, StatusError):
        return error
    if isinstance(error, FilterServerError):
        return StatusError(500, "Internal Server Error")
    return StatusError(400, str(error)) if isinstance(error, FilterRefusedError) else None


def _refused(refusal: StatusError) -> Answer:
    return refusal.status, refusal.to_json()


def _operation(document: DocumentNode, name: str | None) -> OperationDefinitionNode | None:
    operations = [
        node for node in document.definitions if isinstance(node, OperationDefinitionNode)
    ]
    if name:
        operations = [node for node in operations if node.name and node.name.value == name]
    return operations[0] if operations else None


def _is_mutation(operation: OperationDefinitionNode | None) -> bool:
    return operation is not None and operation.operation is OperationType.MUTATION


def _is_open(operation: OperationDefinitionNode | None) -> bool:
    """Whether a key that nobody owns gets an answer: only ``viewer`` says null to it."""
    if operation is None or operation.operation is not OperationType.QUERY:
        return False
    return all(
        isinstance(node, FieldNode) and node.name.value in _OPEN_FIELDS
        for node in operation.selection_set.selections
    )
