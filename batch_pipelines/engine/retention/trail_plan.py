"""What of the audit trail is due: months that are over, by which rule, and what keeps them.

The trail is all feeds': its rules stand in a file of their own, and every regulation that any feed is
under keeps it as long as it keeps documentation of what was done. It changes nothing.
"""

from __future__ import annotations

import datetime as dt  # noqa: TC003  # psycopg's row factory makes what the dataclass says
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from psycopg.rows import class_row, scalar_row

from batch_pipelines.engine.retention import holds
from batch_pipelines.engine.retention.rules import REGULATIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.retention.plan import Planner

# Those that are over and not sealed yet are counted; sealed they are before they go.
_DUE: Final = """
WITH term AS (
    SELECT * FROM unnest(%(keep)s::interval[], %(cut_off)s::text[], %(text)s::text[],
                         %(legal_source)s::text[], %(own)s::boolean[])
        AS t (keep, cut_off, text, legal_source, own)),
months AS (
    SELECT month, entries, sealed_at, last_hash FROM batch_audit.audit_segment WHERE removed_at IS NULL
    UNION ALL
    SELECT date_trunc('month', e.created_at AT TIME ZONE 'UTC')::date, count(*), NULL, NULL
    FROM batch_audit.audit_event AS e
    WHERE e.created_at >= coalesce(
            (SELECT max(month) + interval '1 month' FROM batch_audit.audit_segment)
                AT TIME ZONE 'UTC', '-infinity')
        AND e.created_at < (SELECT date_trunc('month', created_at AT TIME ZONE 'UTC')
                            FROM batch_audit.audit_head) AT TIME ZONE 'UTC'
    GROUP BY 1),
due AS (
    SELECT m.*, d.* FROM months AS m CROSS JOIN LATERAL (
        SELECT max(moment) AS due_at, min(moment) FILTER (WHERE own) AS first_due,
               (array_agg(text ORDER BY moment DESC))[1] AS rule,
               (array_agg(legal_source ORDER BY moment DESC))[1] AS legal_source
        FROM (SELECT (CASE cut_off WHEN 'month' THEN m.month + interval '1 month'
                           ELSE coalesce(m.sealed_at, %(now)s) AT TIME ZONE 'UTC' END + keep)
                     AT TIME ZONE 'UTC' AS moment, text, legal_source, own FROM term) AS t) AS d)
SELECT month, entries, rule, legal_source, due_at,
       coalesce(pg_total_relation_size(to_regclass(
           'batch_audit.audit_event_' || to_char(month, 'YYYY_MM'))), 0) AS bytes
FROM due WHERE first_due <= %(now)s ORDER BY month
"""
_HOLDS: Final = "SELECT * FROM batch_audit.holds_over_month(%s)"


@dataclass(frozen=True)
class DueMonth:
    """A month of the audit trail that a rule would let go.

    Attributes:
        month: Its first day.
        entries: How many.
        rule: The rule that holds longest.
        legal_source: Who says so.
        due_at: Since when, or from when on, it may go.
        bytes: What it takes in the database.
        kept_by: What keeps it; with nothing it goes.
    """

    month: dt.date
    entries: int
    rule: str
    legal_source: str
    due_at: dt.datetime
    bytes: int
    kept_by: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The month, as events name it."""
        return f"{self.month:%Y-%m}"

    @property
    def goes(self) -> bool:
        """Whether nothing keeps it."""
        return not self.kept_by


def due_months(connection: Connection, planner: Planner) -> tuple[DueMonth, ...]:
    """List the months of the trail that a rule would let go, the first one first.

    Args:
        connection: A connection.
        planner: Has the rules, the regulations of all feeds, and the time.

    Returns:
        What goes, and what something keeps; what is not due at all is not listed.
    """
    own = planner.site.audit_trail
    if not own:
        return ()
    named = {
        word.casefold() for feed in planner.feeds.values() for word in feed.compliance.regulation
    }
    named |= {*planner.regulations}
    floors = [rules["ledger"] for name, rules in sorted(REGULATIONS.items()) if name in named]
    terms = [(rule.keep, rule.cut_off, rule.legal_source, True) for rule in own]
    # Documentation of a deed is as old as the deed.
    terms += [(rule.keep, "month", rule.legal_source, False) for rule in floors]
    wanted = {
        "keep": [keep for keep, *_ in terms],
        "cut_off": [cut_off for _, cut_off, *_ in terms],
        "text": [f"{keep} from {_SAID[cut_off]}" for keep, cut_off, *_ in terms],
        "legal_source": [source for *_, source, _ in terms],
        "own": [is_own for *_, is_own in terms],
        "now": planner.now,
    }
    with connection.cursor(row_factory=class_row(DueMonth)) as cursor:
        found = cursor.execute(_DUE, wanted).fetchall()
    return tuple(replace(m, kept_by=tuple(_why_kept(connection, planner, m))) for m in found)


_SAID: Final = {"month": "the month's end", "sealed": "its seal"}


def _why_kept(connection: Connection, planner: Planner, month: DueMonth) -> Iterator[str]:
    with connection.cursor(row_factory=scalar_row) as cursor:
        for hold_id in cursor.execute(_HOLDS, (month.month,)).fetchall():
            yield str(holds.by_id(connection, hold_id))
    if month.due_at > planner.now:
        yield f"longer rule: {month.rule}, {month.legal_source}, until {month.due_at:%Y-%m-%d}"
