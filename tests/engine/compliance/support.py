"""A ledger of three months, written by hand, and a report of it."""

from __future__ import annotations

import datetime as dt
import itertools
from typing import TYPE_CHECKING

from batch_pipelines.engine.compliance.making import Maker, make
from batch_pipelines.engine.compliance.scope import month, scope

if TYPE_CHECKING:
    from pathlib import Path

    from batch_pipelines.engine.compliance.making import Made
    from batch_pipelines.engine.compliance.reading import Read
    from batch_pipelines.engine.postgres.database import Connection

VIENNA = "Europe/Vienna"
UNDER = {"lab": ("CLIA", "HIPAA"), "orders": (), "visits": ("HIPAA",)}
NOW = dt.datetime(2026, 6, 1, 12, tzinfo=dt.UTC)

# A batch every 7 hours from February to May 2026, of three feeds in turn, in all states in turn.
LEDGER = """
SET TimeZone = 'UTC';
INSERT INTO batch_audit.import_history (batch_id, job_id, feed, feed_version, partition_key, status,
    attempt, requested_by, correlation_id, started_at, completed_at, source_records, written_records,
    rejected_records, skipped_records, critical_records, status_before, error_details, failure_cause)
SELECT md5(n::text)::uuid, n, (ARRAY['lab', 'orders', 'visits'])[1 + n % 3], 1, 'p' || n / 6, s.status,
    n, 'a test', 'c', at, at + interval '1 minute', 100 + n,
    CASE WHEN s.status <> 'FAILED' THEN 90 + n END, n % 11, n % 2, CASE n % 3 WHEN 0 THEN n % 4 END,
    CASE WHEN s.status = 'SUPERSEDED' THEN (ARRAY['SUCCESS', 'VALIDATION_FAILED'])[1 + n % 2] END,
    CASE WHEN s.status = 'FAILED' THEN 'why' END, CASE WHEN s.status = 'FAILED' THEN 'delivery' END
FROM generate_series(0, 399) AS n,
     LATERAL (SELECT timestamptz '2026-02-01 00:00:00+00' + n * interval '7 hours' AS at) AS a,
     LATERAL (SELECT (ARRAY['SUCCESS', 'PARTIAL_SUCCESS', 'FAILED', 'SUPERSEDED', 'DUPLICATE',
                            'ROLLED_BACK', 'VALIDATION_FAILED', 'SUCCESS', 'IN_PROGRESS'])[1 + n % 9]
                     AS status) AS s;
INSERT INTO batch_audit.import_file (batch_id, file_name, target_table, size, format, crc32c, sha256)
SELECT batch_id, 'f' || f, 't', 1000 + f, 'csv', 1, 'x'
FROM batch_audit.import_history, generate_series(1, 2) AS f;
SELECT batch_audit.ensure_month('batch_audit.crc32_audit', m)
FROM generate_series(timestamptz '2026-01-15', '2026-07-15', '1 month') AS m;
INSERT INTO batch_audit.crc32_audit (batch_id, entity_type, entity_id, computed_crc32, expected_crc32,
    expected_source, status, bytes_processed, processing_time_ms, hardware_utilized, created_at)
SELECT batch_id, e.type, 'f' || n, 1, CASE WHEN s.status <> 'recorded' THEN 1 END,
    CASE WHEN s.status <> 'recorded' THEN 'ingest' END, s.status, 10 * n, 1, true,
    started_at + n * interval '1 second'
FROM batch_audit.import_history, generate_series(1, 6) AS n,
     LATERAL (SELECT CASE WHEN n < 3 THEN 'file' ELSE 'chunk' END AS type) AS e,
     LATERAL (SELECT CASE WHEN (attempt + n) % 13 = 0 THEN 'invalid' WHEN n % 3 = 0 THEN 'recorded'
                          ELSE 'valid' END AS status) AS s;
INSERT INTO batch_audit.validation_log (batch_id, run_id, target_table, status, started_at)
SELECT batch_id, batch_id, 't' || n, (ARRAY['SUCCESS', 'SUCCESS', 'FAILED', 'PARTIAL_SUCCESS',
    'UNVERIFIED', 'IN_PROGRESS'])[1 + (attempt + n) % 6], started_at + interval '30 seconds'
FROM batch_audit.import_history, generate_series(1, 2) AS n;
INSERT INTO batch_audit.import_reject (batch_id, feed, target_table, file_name, record_number, raw,
    sqlstate, constraint_name, message, breaches, replayed_at)
SELECT batch_id, feed, 't', 'f1', n, 'secret', '23514', 'c' || n % 3, 'breaks a rule', '[]',
    CASE WHEN n % 4 = 0 THEN started_at END
FROM batch_audit.import_history, generate_series(1, 10) AS n WHERE n <= rejected_records;
INSERT INTO batch_audit.critical_record (batch_id, target_table, condition, record_key, alert_key)
SELECT batch_id, 't', 'k' || n % 2, '{"id": "' || n || '"}', feed || attempt || '/' || n
FROM batch_audit.import_history, generate_series(1, 3) AS n WHERE n <= critical_records;
INSERT INTO batch_audit.alert (deduplication_key, kind, severity, feed, batch_id, subject, occurred_at,
    raised_at, escalated_at, acknowledged_at, acknowledged_by)
SELECT c.alert_key, 'critical_row', 'critical', h.feed, h.batch_id, 'secret', h.started_at,
    h.started_at + (h.attempt % 17 + 0.25) * interval '1 second',
    CASE WHEN h.attempt % 4 = 0 THEN h.started_at + interval '15 minutes' END,
    CASE WHEN h.attempt % 2 = 0 THEN h.started_at + h.attempt * interval '1 minute' END,
    CASE WHEN h.attempt % 2 = 0 THEN 'ada (command line)' END
FROM batch_audit.critical_record AS c JOIN batch_audit.import_history AS h USING (batch_id);
INSERT INTO batch_audit.alert_delivery (alert_id, channel, escalation, status, sent_at)
SELECT alert_id, 'chat', false, 'SENT', raised_at + interval '2 seconds' FROM batch_audit.alert
WHERE alert_id % 3 = 0;
INSERT INTO batch_audit.alert (deduplication_key, kind, severity, feed, subject, details, occurred_at,
    raised_at, resolved_at)
SELECT 'late/' || n, 'late_delivery', 'warning', 'orders', 'late', '{"partition": "2026-03-01"}',
    timestamptz '2026-02-15 00:00:00+00' + n * interval '10 days',
    timestamptz '2026-02-15 01:00:00+00' + n * interval '10 days',
    CASE n % 2 WHEN 0 THEN timestamptz '2026-02-15 03:30:00+00' + n * interval '10 days' END
FROM generate_series(0, 9) AS n;
INSERT INTO batch_audit.feed_pause (feed, reason, paused_by, paused_at, resumed_by, resumed_at)
SELECT 'orders', 'why', 'ada', t, 'grace', t + interval '20 days'
FROM generate_series(timestamptz '2026-02-20', '2026-05-20', '1 month') AS t;
INSERT INTO batch_audit.threshold_event (scope, measure, state_before, state, value, created_at)
VALUES ('orders', 'failed_batches', 'ok', 'breach', 3, '2026-03-05'),
       ('orders', 'failed_batches', 'breach', 'ok', 1, '2026-04-01');
"""


def report(
    connection: Connection,
    folder: Path,
    key: str = "2026-03",
    *,
    types: tuple[str, ...] = (),
    as_of: dt.datetime = NOW,
    **filters: str,
) -> Made:
    """Make the report of a month in Vienna."""
    about = scope(month(key, VIENNA), UNDER, as_of, **filters)
    ticks = itertools.count()
    maker = Maker(
        folder, "a test", "batch-pipelines test",
        new_id=lambda: str(connection.execute("SELECT gen_random_uuid()").fetchall()[0][0]),
        monotonic=lambda: float(next(ticks)),
    )  # fmt: skip
    return make(connection, about, types, maker)


def figures(read: Read, kind: str) -> dict[str, int | float | None]:
    """The figures of a type by name."""
    (section,) = (each for each in read.sections if each.type == kind)
    assert section.content is not None, section.failure
    return {figure.name: figure.value for figure in section.content.figures}


def rows(read: Read, kind: str, table: str) -> list[tuple[object, ...]]:
    """The lines of a table of a type."""
    (section,) = (each for each in read.sections if each.type == kind)
    assert section.content is not None, section.failure
    (found,) = (each for each in section.content.tables if each.name == table)
    return [*found.rows]
