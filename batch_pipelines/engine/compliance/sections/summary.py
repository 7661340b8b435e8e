"""Totals: batches, files, records and bytes by feed, regulation and day; failures; late deliveries."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from dataclasses import astuple, dataclass, fields
from typing import TYPE_CHECKING

from psycopg.rows import class_row

from batch_pipelines.engine.compliance.model import Content, Figure, listing
from batch_pipelines.engine.ledger.outcomes import OUTCOME
from batch_pipelines.engine.monitoring.facts import LATE_DELIVERY
from batch_pipelines.engine.reports.figures import share

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from batch_pipelines.engine.compliance.model import Table
    from batch_pipelines.engine.compliance.scope import Scope
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.reports.page import Cell

# A duplicate was recognised and did nothing, and what is in progress or not validated yet has not ended.
_BATCHES = (
    """
WITH batches AS (
    SELECT h.*,"""
    + OUTCOME
    + """ AS outcome
    FROM batch_audit.import_history AS h
    WHERE started_at >= %(start)s AND started_at < %(until)s
      AND (%(feeds)s::text[] IS NULL OR feed = ANY(%(feeds)s))),
files AS (
    SELECT batch_id, count(*) AS files, sum(size) AS bytes
    FROM batches JOIN batch_audit.import_file USING (batch_id)
    WHERE status <> 'DUPLICATE' GROUP BY batch_id)
"""
)
_BY_FEED = (
    _BATCHES
    + """
SELECT feed, count(*) AS batches,
       count(*) FILTER (WHERE outcome NOT IN ('IN_PROGRESS', 'PUBLISHED', 'DUPLICATE')) AS ended,
       count(*) FILTER (WHERE outcome IN ('SUCCESS', 'PARTIAL_SUCCESS')) AS succeeded,
       coalesce(sum(files), 0)::bigint AS files, coalesce(sum(bytes), 0)::bigint AS bytes,
       coalesce(sum(source_records), 0)::bigint AS records,
       coalesce(sum(written_records), 0)::bigint AS written,
       coalesce(sum(rejected_records), 0)::bigint AS rejected,
       coalesce(sum(skipped_records), 0)::bigint AS skipped,
       coalesce(sum(critical_records), 0)::bigint AS critical
FROM batches LEFT JOIN files USING (batch_id) GROUP BY feed ORDER BY feed
"""
)
_BY_STATUS = (
    _BATCHES
    + """
SELECT status, failure_cause, count(*) FROM batches GROUP BY 1, 2 ORDER BY 1, 2 NULLS FIRST
"""
)
_BY_DAY = (
    _BATCHES
    + """
SELECT (started_at AT TIME ZONE %(timezone)s)::date::text AS day, count(*) AS batches,
       count(*) FILTER (WHERE outcome NOT IN ('IN_PROGRESS', 'PUBLISHED', 'DUPLICATE')) AS ended,
       count(*) FILTER (WHERE outcome IN ('SUCCESS', 'PARTIAL_SUCCESS')) AS succeeded,
       coalesce(sum(source_records), 0)::bigint AS records,
       coalesce(sum(rejected_records), 0)::bigint AS rejected
FROM batches GROUP BY 1 ORDER BY 1
"""
)
_LATE = """
SELECT feed, details ->> 'partition', occurred_at, resolved_at, count(*) OVER ()
FROM batch_audit.alert
WHERE kind = %(late)s AND raised_at >= %(start)s AND raised_at < %(until)s
  AND (%(feeds)s::text[] IS NULL OR feed = ANY(%(feeds)s))
ORDER BY occurred_at, alert_id LIMIT %(listed)s
"""


@dataclass(frozen=True)
class Totals:
    """What the batches of a feed come to."""

    feed: str
    batches: int
    ended: int
    succeeded: int
    files: int
    bytes: int
    records: int
    written: int
    rejected: int
    skipped: int
    critical: int

    @property
    def numbers(self) -> tuple[int, ...]:
        """All but the name."""
        return astuple(self)[1:]


_HEADS = (
    "batches|count", "ended|count", "succeeded|count", "success %|percent", "files|count", "bytes|count",
    "records|count", "written|count", "set aside|count", "skipped|count", "critical|count",
)  # fmt: skip


def read(connection: Connection, scope: Scope) -> Content:
    """Read the totals.

    Args:
        connection: A connection, in the snapshot of the report.
        scope: What the report is about.

    Returns:
        The content.
    """
    given = scope.parameters
    with connection.cursor(row_factory=class_row(Totals)) as cursor:
        feeds = cursor.execute(_BY_FEED, given).fetchall()
    total = _sum("", feeds)
    days = connection.execute(_BY_DAY, given).fetchall()
    states = connection.execute(_BY_STATUS, given).fetchall()
    late = connection.execute(_LATE, {**given, "late": LATE_DELIVERY}).fetchall()
    tables = (
        listing(
            "by_feed",
            "By feed",
            ("feed", *_HEADS, "under"),
            [(t.feed, *_line(t), ", ".join(scope.under(t.feed)) or "none") for t in feeds],
            note="Under: the regulations that a feed's file names now.",
        ),
        _by_regulation(scope, feeds),
        listing(
            "by_status", "By state", ("state|state", "cause of failure", "batches|count"), states
        ),
        listing(
            "by_day",
            "By day",
            (
                "day",
                "batches|count",
                "ended|count",
                "succeeded|count",
                "success %|percent",
                "records|count",
                "set aside|count",
            ),
            [
                (day, n, ended, good, share(good, ended), *more)
                for day, n, ended, good, *more in days
            ],
            note=f"Days of {scope.span.timezone}, by the begin of the batch.",
        ),
        _late(late),
    )
    return Content(total.batches, _figures(total, late), tables)


def _figures(total: Totals, late: Sequence[Sequence[Cell]]) -> tuple[Figure, ...]:
    return (
        Figure("batches", "Batches", total.batches),
        Figure("ended", "of these ended", total.ended),
        Figure("succeeded", "and succeeded", total.succeeded),
        Figure("success_rate", "Success rate", share(total.succeeded, total.ended), "%"),
        Figure("files", "Files", total.files),
        Figure("bytes", "Bytes", total.bytes, "bytes"),
        Figure("records", "Records in sources", total.records),
        Figure("written", "Written", total.written),
        Figure("rejected", "Set aside", total.rejected),
        Figure("skipped", "Skipped", total.skipped),
        Figure("critical", "Critical", total.critical),
        Figure("late", "Late deliveries", _count(late)),
    )


def _by_regulation(scope: Scope, feeds: Iterable[Totals]) -> Table:
    under: dict[str, list[Totals]] = defaultdict(list)
    for each in feeds:
        for word in scope.under(each.feed) or ("none",):
            under[word].append(each)
    sums = [_sum(word, each) for word, each in sorted(under.items())]
    return listing(
        "by_regulation",
        "By regulation",
        ("regulation", *_HEADS),
        [(t.feed, *_line(t)) for t in sums],
        note="A feed under several regulations counts under each; what a feed's file says now.",
    )


def _late(found: Sequence[Sequence[Cell]]) -> Table:
    def hours(due: Cell, came: Cell) -> float | None:
        if not (isinstance(due, dt.datetime) and isinstance(came, dt.datetime)):
            return None
        return round((came - due).total_seconds() / 3600, 1)

    return listing(
        "late_deliveries",
        "Late deliveries",
        ("feed", "partition", "was due|time", "hours late|number"),
        [(feed, key, due, hours(due, came)) for feed, key, due, came, _ in found],
        note="Without hours: it has not come yet.",
        total=_count(found),
    )


def _count(found: Sequence[Sequence[Cell]]) -> int:
    return int(str(found[0][-1])) if found else 0


def _sum(name: str, several: Iterable[Totals]) -> Totals:
    sums = [sum(column) for column in zip(*(each.numbers for each in several), strict=True)]
    return Totals(name, *(sums or [0] * (len(fields(Totals)) - 1)))


def _line(found: Totals) -> tuple[Cell, ...]:
    batches, ended, succeeded, *more = found.numbers
    return (batches, ended, succeeded, share(succeeded, ended), *more)
