"""The error table in real Dagster runs, against a server that fails on demand."""

# No postponed annotations here: Dagster reads that of `context` as it stands.

import dagster as dg
import pytest

from wb_ops import ExportRequest, commit_plan, execute_shard, load_plan, plan_export
from wb_ops.dagster import WandbResource, build_wandb_assets, wandb_retries
from wb_ops.devserver import Fault, Matcher, Responder

RUN_RETRY_TAG = "dagster/retry_on_asset_or_op_failure"


def test_a_wrong_key_is_tried_once_and_the_run_is_not_retried_either(bench):
    bench.wandb = {"api_key": "wrong" * 10}
    ran = bench.run()
    assert ran.waits == []
    assert ran.shown["wandb/error"] == "AuthenticationFailed"
    assert ran.shown["wandb/advice"] == "never"
    assert ran.tags[RUN_RETRY_TAG] == "false"


def test_a_missing_key_says_where_to_put_one(bench):
    bench.wandb = {"api_key": None}
    ran = bench.run()
    assert ran.waits == []
    assert "set WANDB_API_KEY" in ran.failure.step_failure_data.user_failure_data.description


def test_a_missing_project_is_tried_once(bench):
    bench.project = "no-such-project"
    ran = bench.run()
    assert ran.waits == []
    assert ran.shown["wandb/error"] == "NotFound"
    assert ran.shown["wandb/path"] == "ann/no-such-project"
    assert ran.tags[RUN_RETRY_TAG] == "false"


def test_a_warehouse_that_refuses_is_tried_once(bench):
    bench.folder = bench.folder / "no-such-folder"
    ran = bench.run()
    assert ran.waits == []
    assert ran.shown["wandb/error"] == "WarehouseRefused"


def test_a_long_wait_is_dagsters_to_wait(bench):
    bench.wandb = {"max_wait_s": 0.0}
    bench.fail(Responder.rate_limited(0.4))
    ran = bench.run()
    assert ran.success
    (wait_s,) = ran.waits
    assert 0.4 < wait_s <= 0.44
    assert RUN_RETRY_TAG not in ran.tags


def test_a_short_wait_is_the_clients_to_wait(bench):
    bench.wandb = {"max_attempts": 6}
    bench.fail(Responder.rate_limited(0.2))
    ran = bench.run()
    assert ran.success
    assert ran.waits == []


def test_seconds_waited_for_the_limit_are_shown(bench):
    spent = {"RateLimit-Remaining": "0", "RateLimit-Reset": "0.2"}
    bench.fail(Responder(headers=spent))
    assert bench.run().metadata("runs")["wandb/waited_s"] > 0


def test_a_limit_that_never_ends_is_bounded_and_keeps_its_facts(bench):
    bench.wandb = {"max_wait_s": 0.0}
    bench.fail(Responder.rate_limited(0.2), times=None)
    ran = bench.run()
    assert not ran.success
    assert len(ran.waits) == bench.retry_policy.max_retries
    assert ran.shown["wandb/error"] == "RateLimited"
    assert ran.shown["wandb/http_status"] == 429
    assert ran.shown["wandb/retry_after_s"] == pytest.approx(0.2)


def test_a_wait_beyond_the_cap_is_not_waited(bench):
    bench.fail(Responder.rate_limited(7200))
    ran = bench.run()
    assert ran.waits == []
    assert ran.shown["wandb/retry_after_s"] == 7200
    assert ran.tags[RUN_RETRY_TAG] == "false"


@pytest.mark.parametrize(
    "respond", [Responder.error(502), Responder.cut_body(), Responder.reset(), Responder.html()]
)
def test_what_passes_is_retried_by_the_policy(bench, respond: Responder):
    bench.fail(respond, times=2)
    ran = bench.run()
    assert ran.success
    assert ran.waits == [0.01, 0.01]


def test_a_server_that_stays_down_is_bounded_and_keeps_its_facts(bench):
    bench.fail(Responder.error(502), times=None)
    ran = bench.run()
    assert len(ran.waits) == bench.retry_policy.max_retries
    assert ran.shown["wandb/error"] == "ServerUnavailable"
    assert ran.shown["wandb/http_status"] == 502
    assert ran.shown["wandb/operation"] == "Runs"
    assert RUN_RETRY_TAG not in ran.tags


def test_every_failure_says_what_a_support_would_ask(bench):
    bench.wandb = {"max_attempts": 2, "max_wait_s": 0.0}
    bench.fail(Responder(status=429, headers={"Retry-After": "7200", "X-Request-Id": "req-7"}))
    shown = bench.run().shown
    assert shown["wandb/http_status"] == 429
    assert shown["wandb/request_id"] == "req-7"
    assert shown["wandb/operation"] == "Runs"
    assert shown["wandb/path"] == "ann/demo"
    assert shown["wandb/attempts"] == 1
    assert shown["wandb/retry_after_s"] == 7200


def test_a_run_that_fails_the_step_leaves_its_facts_and_the_rows_of_the_others(bench):
    broken = Responder(status=503, headers={"X-Request-Id": "req-8"})
    bench.server.faults.add(Fault(Matcher(path="/exports/2/*"), broken, times=None))
    strict = build_wandb_assets(
        entity="ann", project="demo", on_incomplete="fail", retry_policy=bench.retry_policy
    )
    ran = bench.run(strict)
    assert ran.waits == [0.01, 0.01]
    assert bench.rows("select run_id, count(*) as n from history group by 1 order by 1") == [
        {"run_id": "r0", "n": 5}, {"run_id": "r2", "n": 7}
    ]  # fmt: skip
    assert bench.rows("select run_id from runs order by 1") == [
        {"run_id": run_id} for run_id in ("r0", "r1", "r2")
    ]
    assert ran.shown["wandb/error"] == "ExportIncomplete"
    assert ran.shown["wandb/advice"] == "backoff"
    assert ran.shown["wandb/http_status"] == 503
    assert ran.shown["wandb/request_id"] == "req-8"
    assert ran.shown["wandb/attempts"] == 1
    assert ran.shown["wandb/path"] == "ann/demo/r1"


def test_a_commit_of_shards_in_a_step_of_ones_own_leaves_the_same_facts(bench):
    broken = Responder(status=503, headers={"X-Request-Id": "req-9"})
    bench.server.faults.add(Fault(Matcher(path="/exports/2/*"), broken, times=None))
    request = ExportRequest("ann", "demo", on_incomplete="fail")
    api = bench.resources["wandb"].get_api()
    plan_uri = plan_export(request, api, bench.warehouse).save(str(bench.folder / "plans"))
    for shard in load_plan(plan_uri).shards(2):
        execute_shard(plan_uri, shard, api)

    @dg.asset(retry_policy=bench.retry_policy)
    def committed(context: dg.AssetExecutionContext):
        with wandb_retries(context):
            commit_plan(plan_uri, api, bench.warehouse)

    ran = bench.run(committed)
    assert ran.waits == [0.01, 0.01]
    assert ran.shown["wandb/error"] == "ExportIncomplete"
    assert ran.shown["wandb/http_status"] == 503
    assert ran.shown["wandb/request_id"] == "req-9"
    assert ran.shown["wandb/path"] == "ann/demo/r1"


def test_a_write_whose_answer_was_lost_is_verified_and_not_repeated(bench):
    bench.run()
    bench.server.requests.clear()
    bench.fail(Responder.lost_answer(), operation="UpsertBucket")
    ran = bench.run(bench.best_metrics())
    assert ran.success
    assert ran.waits == []
    assert bench.server.requests.operations().count("UpsertBucket") == 1


def test_a_write_that_did_not_arrive_is_planned_anew(bench):
    bench.run()
    bench.fail(Responder.error(502), operation="UpsertBucket")
    ran = bench.run(bench.best_metrics())
    assert ran.success
    assert ran.waits == [0.01]
    assert ran.metadata("best_metrics")["wandb/values_written"] == 3


@pytest.mark.parametrize(("status", "will_retry"), [(401, "false"), (502, "true")])
def test_run_retries_follow_the_advice_too(bench, status: int, will_retry: str):
    with dg.instance_for_test(overrides={"run_retries": {"enabled": True}}) as instance:
        bench.instance, bench.retry_policy = instance, None
        bench.fail(Responder.error(status), times=None)
        ran = bench.run(tags={"dagster/max_retries": "2"})
        assert ran.tags["dagster/will_retry"] == will_retry


def test_an_unknown_exception_is_left_to_dagster(bench):
    def broken(run: object) -> dict[str, float]:
        raise KeyError("a bug in the user's function")

    bench.retry_policy = None
    ran = bench.run(bench.best_metrics(compute=broken))
    data = ran.failure.step_failure_data
    assert data.user_failure_data is None
    assert data.error.cause.cls_name == "KeyError"
    assert RUN_RETRY_TAG not in ran.tags


def test_an_error_inside_a_users_own_asset_needs_the_block_only(bench):
    @dg.asset
    def own(context: dg.AssetExecutionContext, wandb: WandbResource) -> None:
        with wandb_retries(context):
            wandb.get_api().run("ann/demo/no-such-run")

    ran = bench.run(own)
    assert ran.shown["wandb/path"] == "ann/demo/no-such-run"


def test_what_the_server_says_ends_before_what_to_do_begins(bench):
    bench.fail(Responder.error(401, "user is not logged in"), times=None)
    said = bench.run().failure.step_failure_data.user_failure_data.description
    assert "user is not logged in. Check the API key" in said
