"""What is in the tables after a commit, asked of the warehouse in SQL."""

from __future__ import annotations

import json
import math

import pytest
from batches import DATASET, Batches, flat, names_of, rows
from destinations import Destination

from wb_ops import Warehouse
from wb_ops.tables.values import escape_text
from wb_ops.warehouse import Owner

HOSTILE = [
    "loss", "Loss", "LOSS", 'a"b', "run_id", "a/b", "a.b", "a__b", "损失", "select", "'; drop--",
    "Robert'); DROP TABLE runs;--", "nul\0byte", "lone\ud800surrogate", "x" * 300, "x" * 301,
    "", " ", "%s", "$1", "{}", "a\nb", "key", "value", "_step2",
]  # fmt: skip


def test_a_batch_is_there_and_replaces_itself(warehouse: Warehouse, make: Batches):
    for _ in range(2):
        committed = warehouse.commit(make.batch({"r1": {"loss": [0.5, 0.25]}}))
        assert (committed.runs, committed.history_rows) == (1, 2)
    assert rows(warehouse, "select run_id, state from runs") == [("r1", "finished")]
    history = "select run_id, _step, loss from history order by _step"
    assert rows(warehouse, history) == [("r1", 0, 0.5), ("r1", 1, 0.25)]
    assert rows(warehouse, "select load_id from _wb_loads") == [("load-1",)]


def test_new_metrics_get_columns_and_keep_them(warehouse: Warehouse, make: Batches):
    assert warehouse.commit(make.batch({"r1": {"a": [1.0]}})).new_columns == ("a",)
    assert warehouse.commit(make.batch({"r2": {"a": [2.0], "b": [3.0]}})).new_columns == ("b",)
    assert warehouse.commit(make.batch({"r3": {"b": [4.0]}})).new_columns == ()
    found = rows(warehouse, "select run_id, a, b from history order by run_id")
    assert found == [("r1", 1.0, None), ("r2", 2.0, 3.0), ("r3", None, 4.0)]


def test_hostile_keys_get_columns_of_their_own(warehouse: Warehouse, make: Batches):
    values = {key: [float(number)] for number, key in enumerate(HOSTILE)}
    warehouse.commit(make.batch({"r1": values}))
    names = names_of(warehouse, "history")
    assert len({name.lower() for name in names.values()}) == len(HOSTILE)
    assert max(len(name.encode()) for name in names.values()) <= 60
    row = warehouse.query("select * from history", DATASET).to_pylist()[0]
    for number, key in enumerate(HOSTILE):
        assert row[names[escape_text(key)[0]]] == number, key


def test_history_tall_has_every_metric_under_its_own_key(warehouse: Warehouse, make: Batches):
    values = {key: [float(number), None] for number, key in enumerate(HOSTILE)}
    warehouse.commit(make.batch({"r1": values}))
    found = rows(warehouse, "select run_id, _step, key, value from history_tall")
    expected = [("r1", 0, escape_text(key)[0], float(n)) for n, key in enumerate(HOSTILE)]
    assert sorted(found) == sorted(expected)


def test_texts_arrive_as_they_were(warehouse: Warehouse, make: Batches):
    texts = ["it's", 'say "no"', "a\\b", "损失 🎉", "nul\0", "lone\udfff", "a\tb\nc", "␛", ""]
    config = {"value": texts, "nested": {"lone\ud800": 1e22, "int": 10**30, "one": 1.0}}
    node = {"config": json.dumps(config), "notes": "".join(texts), "tags": [*texts, "a,b", "{}"]}
    warehouse.commit(make.batch({}, nodes={"r'1": node}))
    row = warehouse.read_tables(DATASET, ["runs"])["runs"].to_pylist()[0]
    assert row["run_id"] == "r'1"
    assert row["notes"] == escape_text("".join(texts))[0]
    assert row["tags"] == [escape_text(text)[0] for text in [*texts, "a,b", "{}"]]
    stored = json.loads(row["config"])
    assert stored["value"] == [escape_text(text)[0] for text in texts]
    numbers = stored["nested"]
    assert (numbers["int"], repr(numbers["one"])) == (10**30, "1.0")
    assert repr(numbers[escape_text("lone\ud800")[0]]) == "1e+22"


def test_json_is_typed(warehouse: Warehouse, make: Batches):
    warehouse.commit(make.batch({}, nodes={"r1": {"config": '{"lr": 0.5, "opt": "adam"}'}}))
    found = rows(warehouse, "select config->>'lr', config->>'opt' from runs")
    assert found == [("0.5", "adam")]


def test_special_floats_stay_what_they_are(warehouse: Warehouse, make: Batches):
    values = [math.nan, math.inf, -math.inf, None, -0.0, 5e-324, 1.7976931348623157e308, 0.1]
    warehouse.commit(make.batch({"r1": {"x": values}}))
    found = [value for (value,) in rows(warehouse, "select x from history order by _step")]
    assert repr(found) == repr(values)
    assert rows(warehouse, "select count(*) from history_tall") == [(7,)]


def test_integers_beyond_2_53_are_exact_in_extra(warehouse: Warehouse, make: Batches):
    exact = [2**53, 2**53 + 1, -(2**62) - 1]
    warehouse.commit(make.batch({"r1": {"n": exact}}))
    found = rows(warehouse, "select n, cast(_extra as varchar) from history order by _step")
    assert [n for n, _ in found] == [float(n) for n in exact]
    assert [extra and json.loads(extra)["n"] for _, extra in found] == [None, *exact[1:]]


def test_a_metric_that_changes_its_type_is_never_rounded(warehouse: Warehouse, make: Batches):
    warehouse.commit(make.batch({"r1": {"x": [1, 2]}}))
    warehouse.commit(make.batch({"r2": {"x": [1.5, 0.0003]}}))
    warehouse.commit(make.batch({"r3": {"x": ["text", True]}}))
    warehouse.commit(make.batch({"r4": {"x": [7, "NaN"]}}))
    sql = "select run_id, x, cast(_extra as varchar) from history order by run_id, _step"
    found = rows(warehouse, sql)
    assert [(run_id, x) for run_id, x, _ in found] == [
        ("r1", 1.0), ("r1", 2.0), ("r2", 1.5), ("r2", 0.0003),
        ("r3", None), ("r3", None), ("r4", 7.0), ("r4", None),
    ]  # fmt: skip
    extras = [json.loads(extra)["x"] for _, _, extra in found if extra is not None]
    assert extras == ["text", True, "NaN"]


def test_metrics_past_the_cap_are_in_history_long(destination: Destination, make: Batches):
    warehouse = destination.connect(history_columns=2)
    warehouse.commit(make.batch({"r1": {"c": [1.0, 2.0, 3.0], "rare": [4.0, None, None]}}))
    batch = make.batch({"r2": {"rare": [5.0, 6.0], "Late": [7.0, None], "often": [8.0, math.nan]}})
    committed = warehouse.commit(batch)
    assert (committed.new_columns, committed.history_rows, committed.long_rows) == ((), 2, 3)
    assert set(names_of(warehouse, "history")) == {"c", "rare"}
    long = rows(warehouse, "select run_id, _step, key, value from history_long order by 3, 2")
    assert long[:2] == [("r2", 0, "Late", 7.0), ("r2", 0, "often", 8.0)]
    assert long[2][:3] == ("r2", 1, "often")
    assert math.isnan(long[2][3])
    assert rows(warehouse, "select count(*) from history_tall where run_id = 'r2'") == [(5,)]


def test_the_frequent_metrics_get_the_columns(destination: Destination, make: Batches):
    warehouse = destination.connect(history_columns=1)
    metrics = {"a": [1.0, None, None], "b": [1.0, 2.0, None]}
    assert warehouse.commit(make.batch({"r1": metrics})).new_columns == ("b",)


def test_two_thousand_metrics(destination: Destination, make: Batches):
    warehouse = destination.connect()
    metrics = {f"Metric/{n}": [float(n), n + 0.5] for n in range(2000)}
    committed = warehouse.commit(make.batch({"r1": metrics}))
    assert committed.history_rows == 2
    assert len(committed.new_columns) in (500, 1000)
    assert committed.long_rows == 2 * (2000 - len(committed.new_columns))
    found = rows(warehouse, "select key, sum(value) from history_tall group by key")
    assert dict(found) == {f"Metric/{n}": 2 * n + 0.5 for n in range(2000)}


def test_a_replaced_run_leaves_nothing_behind(destination: Destination, make: Batches):
    warehouse = destination.connect(history_columns=1)
    warehouse.commit(make.batch({"r1": {"a": [1.0, 2.0], "b": [3.0, 4.0]}, "r2": {"b": [9.0]}}))
    warehouse.commit(make.batch({"r1": {"a": [5.0], "b": [6.0]}}))
    found = rows(warehouse, "select run_id, _step, key, value from history_tall order by 1, 3")
    assert found == [("r1", 0, "a", 5.0), ("r1", 0, "b", 6.0), ("r2", 0, "b", 9.0)]
    warehouse.commit(make.batch({}, nodes={"r1": {}}, replaced=["r1"]))
    assert rows(warehouse, "select distinct run_id from history_tall") == [("r2",)]
    assert rows(warehouse, "select distinct run_id from history") == [("r2",)]


def test_a_tail_is_written_from_its_step_on(destination: Destination, make: Batches):
    warehouse = destination.connect(history_columns=1)
    first = {"r1": {"a": [0.0, 1.0, 2.0], "b": [0.0, 1.0, 2.0]}, "r2": {"a": [7.0], "b": [8.0]}}
    warehouse.commit(make.batch(first))
    tail = make.history("r1", {"a": [20.0, 30.0], "b": [20.0, 30.0]}, first_step=2)
    for _ in range(2):
        batch = make.batch({}, nodes={"r1": {}}, history=[tail], replaced=[], tails={"r1": 2})
        assert warehouse.commit(batch).history_rows == 2
    for key in ("a", "b"):
        sql = f"select _step, value from history_tall where run_id='r1' and key='{key}' order by 1"
        assert rows(warehouse, sql) == [(0, 0.0), (1, 1.0), (2, 20.0), (3, 30.0)]
    assert rows(warehouse, "select count(*) from history_tall where run_id = 'r2'") == [(2,)]


def test_system_metrics_are_replaced_by_run(warehouse: Warehouse, make: Batches):
    first = [make.system_metrics("r1", {"gpu.0": 1.5, "cpu": math.nan}),
             make.system_metrics("r2", {"cpu": 3.0})]  # fmt: skip
    batch = make.batch({}, system_metrics=first, replaced_system=["r1", "r2"])
    assert warehouse.commit(batch).system_rows == 3
    second = [make.system_metrics("r1", {"cpu": 4.0})]
    warehouse.commit(make.batch({}, system_metrics=second, replaced_system=["r1"]))
    found = rows(warehouse, "select run_id, key, value, sampled from system_metrics order by 1")
    assert found == [("r1", "cpu", 4.0, True), ("r2", "cpu", 3.0, True)]


def test_flat_leaves_are_columns(warehouse: Warehouse, make: Batches):
    leaves = {
        "r1": {"config.lr": 0.5, "summary.Loss": 1.0, "config.opt": "it's"},
        "r2": {"config.lr": "auto", "summary.loss": 2.0},
    }
    warehouse.commit(make.batch({}, nodes={"r1": {}, "r2": {}}, flat=flat(leaves)))
    found = warehouse.query("select * from runs_flat order by run_id", DATASET).to_pylist()
    assert (found[0]["config__lr"], found[0]["config__opt"]) == (0.5, "it's")
    assert found[1]["config__lr"] is None
    assert found[1]["summary__loss"] == 2.0
    registry = warehouse.query("select * from _wb_columns", DATASET).to_pylist()
    lr = sorted(one["column_name"] for one in registry if one["original_key"] == "config.lr")
    assert lr == ["config__lr", "config__lr__text"]
    assert found[1]["config__lr__text"] == "auto"
    other = next(one["column_name"] for one in registry if one["original_key"] == "summary.Loss")
    assert found[0][other] == 1.0


def test_flat_rows_are_replaced_and_columns_stay(warehouse: Warehouse, make: Batches):
    for leaves in ({"config.a": "x"}, {"config.a": 1.0}, {"config.b": 2.0}):
        warehouse.commit(make.batch({}, nodes={"r1": {}}, flat=flat({"r1": leaves})))
    found = warehouse.query("select * from runs_flat", DATASET).to_pylist()
    assert found == [
        {"run_id": "r1", "_load_id": "load-1", "config__a": None, "config__a__number": None,
         "config__b": 2.0}
    ]  # fmt: skip


def test_rare_leaves_past_the_cap_get_no_column(destination: Destination, make: Batches):
    warehouse = destination.connect(flat_columns=2)
    leaves = {"r1": {"config.rare": 1.0, "config.z": 2.0, "config.y": "t"},
              "r2": {"config.z": 3.0, "config.y": "u"}}  # fmt: skip
    warehouse.commit(make.batch({}, nodes={"r1": {}, "r2": {}}, flat=flat(leaves)))
    assert set(names_of(warehouse, "runs_flat")) == {"config.z", "config.y"}
    warehouse.commit(make.batch({}, nodes={"r3": {}}, flat=flat({"r3": {"config.new": 1.0}})))
    found = rows(warehouse, "select run_id, config__z from runs_flat order by 1")
    assert found == [("r1", 2.0), ("r2", 3.0), ("r3", None)]


def test_five_hundred_long_texts_in_one_row(warehouse: Warehouse, make: Batches):
    leaves: dict[str, float | str] = {
        f"config.k{n:03}": f"{n} " + "long text " * 40 for n in range(600)
    }
    leaves |= {f"summary.k{n:03}": float(n) for n in range(600)}
    warehouse.commit(make.batch({}, nodes={"r1": {}}, flat=flat({"r1": leaves})))
    row = warehouse.query("select * from runs_flat", DATASET).to_pylist()[0]
    names = names_of(warehouse, "runs_flat")
    assert len(names) == 500
    assert {key: row[name] for key, name in names.items()} == {key: leaves[key] for key in names}


def test_a_deleted_run_is_marked_and_kept(warehouse: Warehouse, make: Batches):
    warehouse.commit(make.batch({"r1": {"a": [1.0]}, "r2": {"a": [2.0]}}))
    for load_id in ("load-2", "load-3"):
        warehouse.commit(make.batch({}, deleted=["r1"], load_id=load_id))
    found = rows(warehouse, "select run_id, deleted_at is null, _load_id from runs order by 1")
    assert found == [("r1", False, "load-2"), ("r2", True, "load-1")]
    assert rows(warehouse, "select count(*) from history where run_id = 'r1'") == [(1,)]


def test_receipts_can_be_read_as_completeness(warehouse: Warehouse, make: Batches):
    warehouse.commit(make.batch({"r1": {"a": [1.0, 2.0]}}))
    sql = ("select run_id, state, status, rows, distinct_steps, first_step, last_step, server_rows,"
           " server_last_step from wb_completeness")  # fmt: skip
    assert rows(warehouse, sql) == [("r1", "finished", "complete", 2, 2, 0, 1, 2, 1)]


def test_all_runs_spans_the_datasets(warehouse: Warehouse, make: Batches):
    other = Owner("ann", "other")
    warehouse.commit(make.batch({"r1": {"a": [1.0]}}))
    warehouse.commit(make.batch({"r2": {"a": [1.0]}}, dataset="ann__other", owner=other))
    sql = "select dataset, project, run_id from all_runs order by 1"
    expected = [("ann__other", "other", "r2"), ("ann__trials", "trials", "r1")]
    assert rows(warehouse, sql, None) == expected
    assert rows(warehouse, sql, DATASET) == expected


@pytest.mark.parametrize("dataset", ["a b", 'a"b', "Ünï", "select", "a.b", "a'b"])
def test_a_dataset_may_have_any_name(warehouse: Warehouse, make: Batches, dataset: str):
    warehouse.commit(make.batch({"r1": {"a": [1.0]}}, dataset=dataset))
    assert rows(warehouse, "select run_id, key from history_tall", dataset) == [("r1", "a")]
    assert rows(warehouse, "select dataset from all_runs", None) == [(dataset,)]
