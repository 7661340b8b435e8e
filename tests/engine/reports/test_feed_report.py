"""The report of a feed: its numbers over time are those of plain rows, however many there are."""

from __future__ import annotations

import datetime as dt
import json
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest

from batch_pipelines.engine.errors import FeedError
from batch_pipelines.engine.ledger.pauses import pause
from batch_pipelines.engine.reports.export import csv_text, json_text
from batch_pipelines.engine.reports.feed_page import feed_page
from batch_pipelines.engine.reports.feed_reading import MOST_PERIODS, Wanted, read_feed, unit_for
from batch_pipelines.engine.reports.html import page_html
from tests.engine.compliance.support import LEDGER, VIENNA
from tests.engine.reports.test_page import Document

if TYPE_CHECKING:
    from batch_pipelines.engine.postgres.database import Connection, Database
    from batch_pipelines.engine.reports.feed_facts import FeedFacts
    from batch_pipelines.engine.reports.page import Page

NOW = dt.datetime(2026, 6, 1, 12, tzinfo=dt.UTC)
STAGES = """
INSERT INTO batch_audit.batch_stage (batch_id, stage, run_id, status, started_at, completed_at)
SELECT batch_id, 'bulk_write', batch_id,
       CASE WHEN status = 'FAILED' THEN 'FAILED' ELSE 'SUCCESS' END, started_at,
       started_at + (1 + attempt % 7) * interval '300 milliseconds'
FROM batch_audit.import_history WHERE status <> 'DUPLICATE'
"""
MANY = """
INSERT INTO batch_audit.import_history (batch_id, job_id, feed, feed_version, partition_key, status,
    attempt, requested_by, correlation_id, started_at, source_records, written_records,
    rejected_records)
SELECT gen_random_uuid(), n, %s, 1, n, CASE WHEN n %% 10 = 0 THEN 'FAILED' ELSE 'SUCCESS' END, 1, '',
    '', timestamptz '2026-01-01 12:00:00+00' + n * %s::interval, 100, 90, 10
FROM generate_series(0, %s - 1) AS n
"""


def report(
    db: Connection,
    feed: str,
    *,
    since: dt.datetime | None = None,
    until: dt.datetime = NOW,
    has_file: bool = True,
) -> tuple[FeedFacts, Page]:
    """The facts and the page of a feed, in Vienna; every form of it can be written."""
    wanted = Wanted(feed, "", has_file, since, until, VIENNA)
    facts = read_feed(db, wanted, made_at=NOW, made_by="a test")
    page = feed_page(facts)
    assert json.loads(json_text(facts))["feed"] == feed
    assert all(csv_text(table).count("\r\n") == len(table.rows) + 1 for table in page.tables)
    assert "script" not in Document(page_html(page)).tags
    return facts, page


def rows_of(db: Connection, statement: str, *given: object) -> list[dict[str, Any]]:
    """Rows, to be counted here and not by SQL."""
    cursor = db.execute(statement.encode(), given or None)
    assert cursor.description is not None
    names = [column.name for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def outcome(batch: dict[str, Any]) -> str:
    before = batch["status_before"] if batch["status"] in {"SUPERSEDED", "ARCHIVED"} else None
    return str(batch["status"] if before is None else before)


def test_each_period_has_the_numbers_of_its_rows(db: Connection) -> None:
    db.execute(LEDGER.encode())
    db.execute(STAGES.encode())
    zone = ZoneInfo(VIENNA)
    since, until = (dt.datetime(2026, month, 3, tzinfo=zone) for month in (2, 5))
    facts, page = report(db, "lab", since=since, until=until)
    batches = rows_of(
        db, "SELECT * FROM batch_audit.import_history WHERE feed = 'lab' AND started_at >= %s"
        " AND started_at < %s", since, until,
    )  # fmt: skip
    assert facts.unit == "week"
    timed = {
        row["batch_id"]: (row["completed_at"] - row["started_at"]).total_seconds()
        for row in rows_of(db, "SELECT * FROM batch_audit.batch_stage WHERE status = 'SUCCESS'")
    }

    def monday(batch: dict[str, Any]) -> dt.date:
        day = batch["started_at"].astimezone(zone).date()
        return day - dt.timedelta(days=day.weekday())  # type: ignore[no-any-return]

    assert sum(each.batches for each in facts.periods) == len(batches) > 90
    for period in facts.periods:
        own = [each for each in batches if monday(each) == period.begins.date()]
        how = [outcome(each) for each in own]
        ended = [each for each in how if each not in {"IN_PROGRESS", "PUBLISHED", "DUPLICATE"}]
        good = [each for each in how if each in {"SUCCESS", "PARTIAL_SUCCESS"}]
        assert (period.batches, period.ended, period.succeeded) == (len(own), len(ended), len(good))
        assert period.failed == sum(each in {"FAILED", "VALIDATION_FAILED"} for each in how)
        assert period.success_percent == (100 * len(good) / len(ended) if ended else None)
        for name in ("source_records", "written_records", "rejected_records"):
            told = {
                "source": period.records,
                "written": period.written,
                "rejected": period.rejected,
            }
            assert told[name.split("_")[0]] == sum(each[name] or 0 for each in own)
        of = [each for each in own if each["batch_id"] in timed]
        if of:
            speed = sum(b["source_records"] for b in of) / sum(timed[b["batch_id"]] for b in of)
            assert period.records_per_second == pytest.approx(speed)
    assert all(
        later.begins - earlier.begins == dt.timedelta(days=7)
        for earlier, later in pairwise(facts.periods)
    )

    ids = {each["batch_id"] for each in batches}
    aside = [
        r for r in rows_of(db, "SELECT * FROM batch_audit.import_reject") if r["batch_id"] in ids
    ]
    assert {each.constraint_name: (each.records, each.batches) for each in facts.reasons} == {
        name: (len(own), len({row["batch_id"] for row in own}))
        for name in ("c0", "c1", "c2")
        for own in [[row for row in aside if row["constraint_name"] == name]]
    }
    assert sum(each.batches for each in facts.states) == len(batches)
    assert len(facts.batches) == sum(each["status"] != "DUPLICATE" for each in batches)
    assert len(facts.failures) == sum(
        each["status"] in {"FAILED", "VALIDATION_FAILED"} for each in batches
    )
    assert page.level in {"warn", "bad"}
    assert [each.text.split(":")[0] for each in page.attention] == [
        "Partitions that stand failed, the newest first",
        "Alerts that nobody has acknowledged",
    ]
    pause(db, "orders", by="ada", reason="the sender moves")
    _, page = report(db, "orders", since=dt.datetime(2026, 5, 25, tzinfo=zone))
    assert page.attention[0].text.startswith("It is paused since 20")
    assert page.attention[0].text.endswith(", by ada: the sender moves")


def test_any_number_of_batches_finds_room(database18: Database) -> None:
    for feed, number, apart, unit, periods, pictures in (
        ("none", 0, "1 hour", None, 0, 0),
        ("one", 1, "1 hour", "hour", 1, 3),
        ("ten", 10, "1 day", "day", 10, 8),
        ("rapid", 200, "30 minutes", "day", 5, 8),
        ("often", 5000, "30 minutes", "week", 16, 8),
        ("long", 500, "7 days", "year", 10, 8),
    ):
        with database18.connect("test") as db:
            db.execute(MANY.encode(), (feed, apart, number))
            facts, page = report(db, feed, until=dt.datetime(2036, 1, 1, tzinfo=dt.UTC))
        assert (facts.unit, len(facts.periods), len(facts.batches)) == (unit, periods, number)
        failed = (number + 9) // 10
        assert (facts.total.batches, facts.total.failed) == (number, failed)
        shown = [each for section in page.sections for each in section.pictures]
        assert len(shown) == pictures
        assert all(each.svg.count("<title>") <= 4 * MOST_PERIODS for each in shown)
        assert len(page_html(page)) < 400_000
        if number == 0:
            assert (page.level, page.verdict) == ("plain", "No batch of it began in this time.")
        elif number > 1:
            told = f"{number - failed:,} of {number:,} batches that have ended succeeded (90.00 %)"
            assert page.verdict.startswith(told)


def test_a_feed_that_is_nowhere_is_none(database18: Database) -> None:
    with database18.connect("test") as db:
        with pytest.raises(FeedError, match="There is no feed gone, and no batch"):
            report(db, "gone", has_file=False)
        db.execute(MANY.encode(), ("gone", "1 day", 1))
        assert report(db, "gone", has_file=False)[0].total.batches == 1


@pytest.mark.parametrize(
    ("days", "unit"),
    [(0, "hour"), (2.5, "hour"), (2.6, "day"), (60, "day"), (61, "week"), (420, "week"),
     (421, "month"), (1800, "month"), (1840, "year")],
)  # fmt: skip
def test_periods_are_as_short_as_a_picture_has_room_for(days: float, unit: str) -> None:
    assert unit_for(NOW, NOW + dt.timedelta(days=days)) == unit
    assert MOST_PERIODS == 62
