"""Metrics count what happened; no counter goes down when batches change or are taken back."""

from __future__ import annotations

import threading
import urllib.request
from functools import partial
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from batch_pipelines.engine.errors import SettingsError, ThresholdError
from batch_pipelines.engine.ledger import totals
from batch_pipelines.engine.ledger.stages import STAGES
from batch_pipelines.engine.metrics.collector import LedgerCollector
from batch_pipelines.engine.metrics.exposition import as_text, served, write_file
from batch_pipelines.engine.metrics.families import BUCKETS
from batch_pipelines.engine.postgres.migrate import downgrade, upgrade

if TYPE_CHECKING:
    from pathlib import Path

    from batch_pipelines.engine.postgres.database import Connection, Database
    from tests.engine.conftest import MakeSite
    from tests.support_engine import Site

pytestmark = pytest.mark.versions

DDL = "CREATE TABLE t (a integer PRIMARY KEY, import_batch_id uuid)"
Values = dict[tuple[str, ...], float]


def collector(here: Site) -> LedgerCollector:
    return LedgerCollector(partial(here.database.connect, "metrics"), lambda: {"QUEUED": 3})


def scraped(text: str) -> Values:
    """Every value, by name and values of labels (in the order of their names); parsed by the library."""
    return {
        (
            sample.name.removeprefix("batch_pipelines_"),
            *(sample.labels[name] for name in sorted(sample.labels)),
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def counters(text: str) -> Values:
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text)
        if family.type in {"counter", "histogram"}
        for sample in family.samples
    }


def assert_histograms_hold(found: Values) -> None:
    for stage in STAGES:
        # Buckets are cumulative, and the last one has everything.
        own = [found["stage_duration_seconds_bucket", "orders", up, stage] for up in BUCKETS]
        assert own == sorted(own)
        assert own[-1] == found["stage_duration_seconds_count", "orders", stage] == 1


def test_what_happened_is_counted_and_counters_only_go_up(site: MakeSite) -> None:
    here = site(DDL)
    seen = [scraped(as_text(collector(here)))]
    assert (seen[0]["up",], seen[0]["runs", "QUEUED"]) == (1, 3)
    before: Values = {}

    def step() -> Values:
        nonlocal before
        text = as_text(collector(here))
        now = counters(text)
        assert {name: value for name, value in before.items() if now.get(name, -1) < value} == {}
        before = now
        return scraped(text)

    here.load({"a.csv": "a\n1\n2\n3\n"}, "one")
    found = step()
    assert found["batches_started_total", "orders"] == 1
    assert found["batches_total", "orders", "SUCCESS"] == 1
    assert found["batches_current", "orders", "SUCCESS"] == 1
    assert found["batches_current", "orders", "IN_PROGRESS"] == 0
    assert found["rows_total", "orders", "written"] == 3
    assert found["rows_total", "orders", "read"] == 3
    assert found["source_bytes_total", "orders"] == len("a\n1\n2\n3\n")
    assert found["wal_bytes_total", "orders"] > 0
    checked, size = here.sql(
        "SELECT count(*), sum(bytes_processed) FILTER (WHERE entity_type = 'file')"
        " FROM batch_audit.crc32_audit"
    )[0]
    ended = [found.get(("checksums_total", "orders", s), 0) for s in ("valid", "recorded")]
    assert sum(ended) == checked
    assert found["checksum_bytes_total", "orders"] == size
    assert found["checksum_seconds_total", "orders"] > 0
    assert found["publish_seconds_total", "orders"] > 0
    assert found["write_statement_rows_total", "orders", "bulk"] == 3
    assert found["archive_bags", "bag", "VALID"] == 1
    assert found["archive_bytes", "bag"] > 0
    assert_histograms_hold(found)
    (succeeded,) = here.sql(
        "SELECT extract(epoch FROM completed_at)::float8 FROM batch_audit.import_history"
    )[0]
    stamp = found["last_success_timestamp_seconds", "orders"]
    assert stamp == pytest.approx(succeeded, abs=60)

    # A batch that takes another one's place: what was a success stays counted as one.
    here.load({"a.csv": "a\n1\n2\n"}, "one")
    found = step()
    assert found["batches_total", "orders", "SUCCESS"] == 2
    assert found["batches_total", "orders", "SUPERSEDED"] == 1
    assert found["batches_current", "orders", "SUCCESS"] == 1
    assert found["rows_total", "orders", "written"] == 5

    here.deliver({"a.csv": "a\nx\n"}, "two")
    with pytest.raises(ThresholdError):
        here.run("two")
    found = step()
    assert found["batches_total", "orders", "FAILED"] == 1
    assert found["stage_failures_total", "orders", "bulk_write"] == 1
    assert found["rows_total", "orders", "rejected"] == 1

    # The numbers are those of the ledger itself, asked another way.
    for status, count in here.sql(
        "SELECT status, count(*) FROM batch_audit.import_history GROUP BY 1"
    ):
        assert found["batches_current", "orders", status] == count
    here.sql("DELETE FROM batch_audit.import_history WHERE status = 'SUPERSEDED'")
    assert step()["batches_current", "orders", "SUPERSEDED"] == 0


def test_folding_changes_no_value_however_many_fold_and_read_at_once(site18: MakeSite) -> None:
    here = site18(DDL)
    for n in range(3):
        here.load({"a.csv": f"a\n{n}\n"}, f"k{n}")
    before = totals.read(here.connection)
    assert before
    wrong: list[object] = []

    def work() -> None:
        with here.database.connect("test") as own:
            for _ in range(20):
                totals.fold(own)
                if totals.read(own) != before:
                    wrong.append(totals.read(own))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert here.count("SELECT count(*) FROM batch_audit.metric_change") == 0
    assert totals.read(here.connection) == before


def test_what_is_taken_back_by_its_transaction_is_not_counted(site18: MakeSite) -> None:
    here = site18(DDL)
    here.load({"a.csv": "a\n1\n"})
    before = totals.read(here.connection)
    with here.connection.transaction(force_rollback=True):
        here.sql("UPDATE batch_audit.import_history SET status = 'FAILED', written_records = 99")
        assert totals.read(here.connection) != before
    assert totals.read(here.connection) == before


def test_a_reader_may_scrape(site: MakeSite) -> None:
    here = site(DDL)
    here.load({"a.csv": "a\n1\n"}, "one")
    with here.work("two"):
        for_us = scraped(as_text(collector(here)))

        def as_reader() -> Connection:
            connection = here.owner.connect("metrics")
            connection.execute("SET ROLE batch_reader")
            return connection

        for_them = scraped(as_text(LedgerCollector(as_reader, lambda: {"QUEUED": 3})))
    took = ("collect_duration_seconds",)
    assert for_us["leases", "orders", "held"] == 1
    assert {**for_us, took: 0} == {**for_them, took: 0}


def test_the_file_is_replaced_at_once_and_the_endpoint_answers(
    site18: MakeSite, tmp_path: Path
) -> None:
    here = site18(DDL)
    here.load({"a.csv": "a\n1\n"})
    path = tmp_path / "batch_pipelines.prom"
    path.write_text("old\n")
    with path.open() as old:
        write_file(collector(here), path)
        assert old.read() == "old\n"  # whoever has it open reads a whole one
    assert [*tmp_path.glob("batch_pipelines*")] == [path]
    wanted = ("batches_total", "orders", "SUCCESS")
    assert scraped(path.read_text())[wanted] == 1
    with served(collector(here), 0) as address:
        with urllib.request.urlopen(address, timeout=60) as answer:  # noqa: S310  # our own
            assert answer.headers["Content-Type"].startswith("text/plain")
            assert scraped(answer.read().decode())[wanted] == 1
        port = int(address.split(":")[2].split("/")[0])
        with (
            pytest.raises(SettingsError, match=f"Port {port} on 127.0.0.1 cannot be used"),
            served(collector(here), port),
        ):
            pass
    with pytest.raises(SettingsError, match="metrics cannot be written there"):
        write_file(collector(here), tmp_path / "none" / "x.prom")


def test_without_a_ledger_it_says_so(database18: Database) -> None:
    with database18.connect("test") as connection:
        connection.execute("DROP VIEW batch_audit.metric")
    found = LedgerCollector(partial(database18.connect, "metrics"))
    assert scraped(as_text(found)) == {("up",): 0}


def test_what_a_batch_cost_is_told(site: MakeSite) -> None:
    here = site(DDL)
    batch = here.load({"a.csv": "a\n1\n2\n"})
    (row,) = here.sql(
        "SELECT written_records, source_bytes, wal_bytes > 0, wal_bytes_per_row * 2 - wal_bytes,"
        " publish_seconds > 0, stage_seconds >= publishing_seconds, bags, bag_bytes > 0"
        " FROM batch_audit.batch_cost WHERE batch_id = %s", batch.batch_id
    )  # fmt: skip
    assert row[:3] == (2, len("a\n1\n2\n"), True)
    assert abs(row[3]) < 1
    assert row[4:] == (True, True, 1, True)


def test_a_ledger_that_is_brought_up_to_date_counts_what_it_knows(
    database18: Database, site18: MakeSite
) -> None:
    here = site18(DDL)
    here.load({"a.csv": "a\n1\n2\n"}, "one")
    here.load({"a.csv": "a\n1\n"}, "one")
    here.deliver({"a.csv": "a\nx\n"}, "two")
    with pytest.raises(ThresholdError):
        here.run("two")
    before = counters(as_text(collector(here)))
    downgrade(database18, "0021")
    upgrade(database18)
    after = counters(as_text(collector(here)))
    # How often a batch was published in between is not known any more, nor how its rows were written.
    forgotten = ("PUBLISHED", "write_", "publish_seconds", "checksum_", "schema_changes")
    known = {
        name: value for name, value in before.items()
        if not any(word in part for word in forgotten for part in name)
    }  # fmt: skip
    assert len(known) > 50
    assert {name: after.get(name) for name in known} == pytest.approx(known)
