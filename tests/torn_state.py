"""What no reader of a warehouse may ever see, whoever writes into it at that moment."""

from __future__ import annotations

import threading

from wb_ops import Warehouse, WarehouseBusy, WarehouseError, WarehouseRefused

TORN = {
    "rows that no receipt speaks of": """
        select run_id from history where run_id not in
            (select run_id from _wb_receipts where table_name = 'history')""",
    "a receipt whose rows are not there": """
        select r.run_id from _wb_receipts r where table_name = 'history'
        and r.distinct_steps <> (select count(*) from history h where h.run_id = r.run_id)""",
    "system metrics that are not those of their receipt": """
        select r.run_id from _wb_receipts r where table_name = 'system_metrics' and r.rows_read
        <> (select count(*) from system_metrics s where s.run_id = r.run_id)""",
    "a row twice": """
        select run_id, _step from history group by run_id, _step having count(*) > 1""",
    "a system metric twice": """
        select run_id from system_metrics group by run_id, timestamp, key having count(*) > 1""",
    "a run twice": "select run_id from runs group by run_id having count(*) > 1",
    "a history without its run": """
        select distinct run_id from history where run_id not in (select run_id from runs)""",
    "a run that is flat and is not, or the other way round": """
        select coalesce(r.run_id, f.run_id) from runs r full join runs_flat f
        on r.run_id = f.run_id where r.run_id is null or f.run_id is null""",
    "a column without its name": """
        select column_name from information_schema.columns where table_name = 'history'
        and table_schema = '{dataset}' and column_name like 'm%'
        and column_name not in (select column_name from _wb_columns)""",
}


def torn(warehouse: Warehouse, dataset: str) -> list[str]:
    """What is torn now, by one statement, which sees one state."""
    looks = (f"select '{what}' as what where exists ({sql})" for what, sql in TORN.items())
    sql = " union all ".join(looks).format(dataset=dataset)
    return [str(what) for what in warehouse.query(sql, dataset)["what"].to_pylist()]


def has_tables(warehouse: Warehouse, dataset: str) -> bool:
    sql = f"select 1 from information_schema.tables where table_schema = '{dataset}'"
    try:
        return warehouse.query(sql).num_rows > 0
    except WarehouseRefused:
        return False  # the file is not there yet


class Reader:
    """Looks for torn state the whole time, as somebody's dashboard would."""

    def __init__(self, warehouse: Warehouse, *datasets: str) -> None:
        self.torn: list[str] = []
        self.looks = 0
        self._warehouse = warehouse
        self._datasets = datasets
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.5):
            for dataset in self._datasets:
                try:
                    if has_tables(self._warehouse, dataset):
                        self.torn += torn(self._warehouse, dataset)
                        self.looks += 1
                except WarehouseBusy:
                    continue  # held by a writer
                except WarehouseError as exc:
                    self.torn.append(str(exc))
