"""Each error of the package has one translation, whatever wraps it and wherever it is raised."""

# No postponed annotations here: Dagster reads that of `context` as it stands.

from collections.abc import Iterator

import dagster as dg
import pytest

from wb_ops import errors
from wb_ops.dagster import wandb_retries
from wb_ops.errors import Advice, AdviceKind, RateLimited, ServerUnavailable, WbOpsError

NEVER, POLICY, WAIT = "Failure, no retry", "Failure, the policy decides", "RetryRequested"

# The table of the design. A class that is not here fails the test below.
TABLE = {
    "RateLimited": WAIT,
    "WarehouseBusy": WAIT,
    "ServerUnavailable": POLICY,
    "ConnectionFailed": POLICY,
    "RequestTimeout": POLICY,
    "MalformedResponse": POLICY,
    "OutcomeUnknown": POLICY,
    "IncompleteHistory": POLICY,
    "WarehouseUnavailable": POLICY,
    "AuthenticationFailed": NEVER,
    "PermissionDenied": NEVER,
    "NotFound": NEVER,
    "InvalidRequest": NEVER,
    "WarehouseRefused": NEVER,
    "ExportIncomplete": NEVER,
    "CommError": NEVER,
    "WarehouseError": NEVER,
    "WbOpsError": NEVER,
}


def all_classes(root: type[WbOpsError] = WbOpsError) -> Iterator[type[WbOpsError]]:
    yield root
    for cls in root.__subclasses__():
        yield from all_classes(cls)


PUBLIC = sorted({cls.__name__ for cls in all_classes() if not cls.__name__.startswith("_")})


def translated(error: Exception, **options: float) -> Exception:
    with pytest.raises(Exception) as caught, wandb_retries(**options):
        raise error
    return caught.value


def kind_of(exc: Exception) -> str:
    if isinstance(exc, dg.RetryRequested):
        return WAIT
    assert isinstance(exc, dg.Failure)
    return POLICY if exc.allow_retries else NEVER


@pytest.mark.parametrize("name", PUBLIC)
def test_every_error_class_has_its_translation(name: str):
    cls = getattr(errors, name)
    facts = {"retry_after_s": 7.0} if TABLE[name] is WAIT else {}
    assert kind_of(translated(cls("it failed", **facts))) == TABLE[name]


def test_an_unknown_wait_is_left_to_the_policy():
    assert kind_of(translated(RateLimited("no header"))) == POLICY


@pytest.mark.parametrize(
    ("causes", "expected"),
    [
        ([Advice(AdviceKind.AFTER, 3.0), Advice(AdviceKind.NEVER)], WAIT),
        ([Advice(AdviceKind.BACKOFF)], POLICY),
        ([Advice(AdviceKind.NEVER)], NEVER),
    ],
)
def test_an_incomplete_export_is_translated_by_its_mildest_advice(causes, expected):
    assert kind_of(translated(errors.ExportIncomplete("2 of 3", causes))) == expected


def test_the_wait_is_the_servers_and_a_little_more():
    exc = translated(RateLimited("slow down", retry_after_s=40.0))
    assert 40.0 < exc.seconds_to_wait <= 44.0
    assert exc.__cause__.metadata["wandb/retry_after_s"].value == 40.0


def test_a_wait_beyond_the_cap_fails_and_says_so():
    exc = translated(RateLimited("slow down", retry_after_s=40.0), max_wait_s=30.0)
    assert kind_of(exc) == NEVER
    assert "40 s is longer than this step may wait (30 s)" in exc.description


def test_an_error_that_others_have_wrapped_is_found():
    wrapped = RuntimeError("pipeline step failed")
    wrapped.__cause__ = ValueError("extraction failed")
    wrapped.__cause__.__cause__ = ServerUnavailable("502", http_status=502)
    exc = translated(wrapped)
    assert exc.metadata["wandb/http_status"].value == 502
    assert exc.__cause__ is wrapped


def test_unknown_exceptions_are_left_as_they_are():
    bug = KeyError("a bug")
    assert translated(bug) is bug


def test_what_the_body_decides_itself_is_left_as_it_is():
    own = dg.Failure("I know better", allow_retries=False)
    own.__cause__ = ServerUnavailable("502")
    assert translated(own) is own


def test_as_a_decorator_it_translates_functions_and_generators():
    @wandb_retries()
    def plain() -> int:
        raise ServerUnavailable("502")

    @wandb_retries()
    def generator() -> Iterator[int]:
        yield 1
        raise ServerUnavailable("502")

    with pytest.raises(dg.Failure):
        plain()
    started = generator()
    assert next(started) == 1
    with pytest.raises(dg.Failure):
        next(started)


def test_an_asynchronous_body_is_refused_where_it_is_decorated():
    async def body() -> None: ...

    with pytest.raises(TypeError, match="inside it"):
        wandb_retries()(body)


@pytest.mark.parametrize("form", ["decorator", "block"])
def test_a_users_asset_waits_as_long_as_asked(bench, form: str):
    attempts = []

    def once(context: dg.AssetExecutionContext) -> None:
        attempts.append(context.retry_number)
        if len(attempts) == 1:
            raise RateLimited("slow down", retry_after_s=0.1)

    @dg.asset(name="decorator", retry_policy=dg.RetryPolicy(max_retries=1))
    @wandb_retries()
    def decorated(context: dg.AssetExecutionContext) -> None:
        once(context)

    @dg.asset(name="block", retry_policy=dg.RetryPolicy(max_retries=1))
    def block(context: dg.AssetExecutionContext) -> None:
        with wandb_retries(context):
            once(context)

    result = bench.run({"decorator": decorated, "block": block}[form])
    assert result.success
    assert attempts == [0, 1]


def test_in_a_direct_call_the_translation_is_the_same():
    @dg.asset
    def asset(context: dg.AssetExecutionContext) -> None:
        with wandb_retries(context):
            raise RateLimited("slow down", retry_after_s=1.0)

    with pytest.raises(dg.RetryRequested):
        asset(dg.build_asset_context())
