"""What was proven: checksums by kind of entity, validations and their checks, batches proven again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batch_pipelines.engine.compliance.model import Content, Figure, listing
from batch_pipelines.engine.reports.figures import share

if TYPE_CHECKING:
    from batch_pipelines.engine.compliance.scope import Scope
    from batch_pipelines.engine.postgres.database import Connection

# crc32_audit and its partitions by month are read by created_at: a month is a partition or two.
_CHECKSUMS = """
SELECT h.feed, a.entity_type, count(*)::bigint AS computed,
       count(*) FILTER (WHERE a.status <> 'recorded') AS compared,
       count(*) FILTER (WHERE a.status = 'valid') AS valid,
       count(*) FILTER (WHERE a.status = 'invalid') AS invalid,
       coalesce(sum(a.bytes_processed), 0)::bigint AS bytes
FROM batch_audit.crc32_audit AS a LEFT JOIN batch_audit.import_history AS h USING (batch_id)
WHERE a.created_at >= %(start)s AND a.created_at < %(until)s
  AND (%(feeds)s::text[] IS NULL OR h.feed = ANY(%(feeds)s))
  AND (%(entity_type)s::text IS NULL OR a.entity_type = %(entity_type)s)
GROUP BY 1, 2 ORDER BY 1 NULLS FIRST, 2
"""
# Those with the most invalid ones first, then the newest.
_BY_BATCH = """
SELECT h.feed, h.partition_key, a.batch_id::text, a.entity_type, min(a.created_at), max(a.created_at),
       count(*)::bigint, count(*) FILTER (WHERE a.status <> 'recorded'),
       count(*) FILTER (WHERE a.status = 'valid'), count(*) FILTER (WHERE a.status = 'invalid'),
       coalesce(sum(a.bytes_processed), 0)::bigint, count(*) OVER ()
FROM batch_audit.crc32_audit AS a LEFT JOIN batch_audit.import_history AS h USING (batch_id)
WHERE a.created_at >= %(start)s AND a.created_at < %(until)s
  AND (%(feeds)s::text[] IS NULL OR h.feed = ANY(%(feeds)s))
  AND (%(entity_type)s::text IS NULL OR a.entity_type = %(entity_type)s)
GROUP BY h.feed, h.partition_key, a.batch_id, a.entity_type
ORDER BY 10 DESC, 5 DESC, 3, 4 LIMIT %(listed)s
"""
_INVALID = """
SELECT a.created_at, h.feed, h.partition_key, a.entity_type, a.entity_id, a.expected_source,
       coalesce(a.digest_algorithm, 'crc32c'),
       coalesce(a.expected_digest, lpad(to_hex(a.expected_crc32), 8, '0')),
       coalesce(a.computed_digest, lpad(to_hex(a.computed_crc32), 8, '0'))
FROM batch_audit.crc32_audit AS a LEFT JOIN batch_audit.import_history AS h USING (batch_id)
WHERE a.status = 'invalid' AND a.created_at >= %(start)s AND a.created_at < %(until)s
  AND (%(feeds)s::text[] IS NULL OR h.feed = ANY(%(feeds)s))
  AND (%(entity_type)s::text IS NULL OR a.entity_type = %(entity_type)s)
ORDER BY a.created_at, a.id LIMIT %(listed)s
"""
_VALIDATIONS = """
SELECT coalesce(v.feed, h.feed) AS feed, v.target_table, count(*) AS made,
       count(*) FILTER (WHERE v.status = 'SUCCESS') AS succeeded,
       count(*) FILTER (WHERE v.status = 'PARTIAL_SUCCESS') AS partly,
       count(*) FILTER (WHERE v.status = 'FAILED') AS failed,
       count(*) FILTER (WHERE v.status = 'UNVERIFIED') AS unverified,
       count(*) FILTER (WHERE v.status = 'IN_PROGRESS') AS unfinished
FROM batch_audit.validation_log AS v LEFT JOIN batch_audit.import_history AS h USING (batch_id)
WHERE v.started_at >= %(start)s AND v.started_at < %(until)s
  AND (%(feeds)s::text[] IS NULL OR coalesce(v.feed, h.feed) = ANY(%(feeds)s))
GROUP BY 1, 2 ORDER BY 1, 2
"""
# Of a kind each: there is one of some kinds for every column.
_CHECKS = """
SELECT split_part(c.value ->> 'name', '.', 1), count(*),
       count(*) FILTER (WHERE c.value ->> 'status' = 'SUCCESS'),
       count(*) FILTER (WHERE c.value ->> 'status' = 'FAILED'),
       count(*) FILTER (WHERE c.value ->> 'status' = 'UNVERIFIED')
FROM batch_audit.validation_log AS v
JOIN batch_audit.validation_summary AS s ON s.log_id = v.id
LEFT JOIN batch_audit.import_history AS h ON h.batch_id = v.batch_id
CROSS JOIN LATERAL jsonb_array_elements(s.checks) AS c (value)
WHERE v.started_at >= %(start)s AND v.started_at < %(until)s
  AND (%(feeds)s::text[] IS NULL OR coalesce(v.feed, h.feed) = ANY(%(feeds)s))
GROUP BY 1 ORDER BY 1
"""
_BAD_CHECKS = """
SELECT v.started_at, coalesce(v.feed, h.feed), h.partition_key, v.target_table, c.value ->> 'name',
       c.value ->> 'status', count(*) OVER ()
FROM batch_audit.validation_log AS v
JOIN batch_audit.validation_summary AS s ON s.log_id = v.id
LEFT JOIN batch_audit.import_history AS h ON h.batch_id = v.batch_id
CROSS JOIN LATERAL jsonb_array_elements(s.checks) AS c (value)
WHERE v.started_at >= %(start)s AND v.started_at < %(until)s AND c.value ->> 'status' <> 'SUCCESS'
  AND (%(feeds)s::text[] IS NULL OR coalesce(v.feed, h.feed) = ANY(%(feeds)s))
ORDER BY c.value ->> 'status' <> 'FAILED', v.started_at, v.id, 5 LIMIT %(listed)s
"""
_VERIFICATIONS = """
SELECT h.feed, v.target_table, count(*), count(*) FILTER (WHERE v.status = 'SUCCESS'),
       count(*) FILTER (WHERE v.status = 'PARTIAL_SUCCESS'),
       count(*) FILTER (WHERE v.status = 'FAILED'), count(*) FILTER (WHERE v.status = 'UNVERIFIED'),
       coalesce(sum(v.changed), 0)::bigint, coalesce(sum(v.missing), 0)::bigint,
       coalesce(sum(v.added), 0)::bigint
FROM batch_audit.verification_log AS v JOIN batch_audit.import_history AS h USING (batch_id)
WHERE v.started_at >= %(start)s AND v.started_at < %(until)s
  AND (%(feeds)s::text[] IS NULL OR h.feed = ANY(%(feeds)s))
GROUP BY 1, 2 ORDER BY 1, 2
"""
# The chain's own numbers: whoever has an anchor of the last one can hold the trail against it.
_TRAIL = """
SELECT count(*), min(seq), max(seq),
       (SELECT encode(hash, 'hex') FROM batch_audit.audit_event AS last
        WHERE last.seq = max(e.seq) AND last.created_at >= %(start)s AND last.created_at < %(until)s)
FROM batch_audit.audit_event AS e WHERE created_at >= %(start)s AND created_at < %(until)s
"""
_OUTCOMES = (
    "succeeded|count", "but for columns without digest|count", "failed|count", "unverified|count",
)  # fmt: skip


def read(connection: Connection, scope: Scope) -> Content:
    """Read what was proven.

    Args:
        connection: A connection, in the snapshot of the report.
        scope: What the report is about.

    Returns:
        The content.
    """
    given = scope.parameters
    checksums = connection.execute(_CHECKSUMS, given).fetchall()
    kinds = sorted({row[1] for row in checksums})
    invalid = connection.execute(_INVALID, given).fetchall()
    validations = connection.execute(_VALIDATIONS, given).fetchall()
    checks = connection.execute(_CHECKS, given).fetchall()
    bad_checks = connection.execute(_BAD_CHECKS, given).fetchall()
    by_batch = connection.execute(_BY_BATCH, given).fetchall()
    again = connection.execute(_VERIFICATIONS, given).fetchall()
    trail = connection.execute(_TRAIL, given).fetchall()
    computed, compared, valid, wrong, _ = (
        sum(row[place] for row in checksums) for place in range(2, 7)
    )
    made, good, partly, failed, unverified, unfinished = (
        sum(row[place] for row in validations) for place in range(2, 8)
    )
    figures = (
        Figure("checksums", "Checksums computed", computed),
        Figure("compared", "of these compared", compared),
        Figure("valid_rate", "Valid of those compared", share(valid, compared), "%"),
        Figure("invalid", "Invalid", wrong),
        Figure("validations", "Tables validated", made),
        Figure("validation_rate", "Validated well", share(good + partly, made - unfinished), "%"),
        Figure("validations_failed", "Validations that failed", failed),
        Figure("validations_unverified", "that could not be made", unverified),
        Figure("verified_again", "Proven again", sum(row[2] for row in again)),
        Figure("verified_failed", "Proven again, and differing", sum(row[5] for row in again)),
        Figure("events", "Entries of the audit trail", trail[0][0]),
    )
    heads = (
        "computed|count",
        "compared|count",
        "valid|count",
        "invalid|count",
        "valid %|percent",
        "bytes|count",
    )
    tables = (
        listing(
            "by_entity_type",
            "Checksums by kind of entity",
            ("entity", *heads),
            [
                (kind, *_compliance([[*row[2:]] for row in checksums if row[1] == kind]))
                for kind in kinds
            ],
            note="Valid % is of those compared: where nobody had promised a checksum there is none.",
        ),
        listing(
            "checksums_by_feed",
            "Checksums by feed",
            ("feed", "entity", *heads),
            [(feed, kind, *_compliance([numbers])) for feed, kind, *numbers in checksums],
        ),
        listing(
            "checksums_by_batch",
            "Checksums by batch, those with invalid ones first, then the newest",
            ("feed", "partition", "batch|code", "entity", "first|time", "last|time", *heads),
            [(feed, key, batch, kind, first, last, *_compliance([numbers]))
             for feed, key, batch, kind, first, last, *numbers, _ in by_batch],
            total=by_batch[0][-1] if by_batch else 0,
        ),
        listing(
            "invalid_checksums",
            "Checksums that are not what was expected",
            ("computed at|time", "feed", "partition", "entity", "which", "expected by", "algorithm",
             "expected|code", "found|code"),
            invalid,
            total=wrong,
        ),
        listing(
            "validations",
            "Validations by table",
            ("feed", "table", "made|count", "succeeded|count", "but for what is set aside|count",
             "failed|count", "unverified|count", "unfinished|count"),
            validations,
        ),
        listing(
            "checks",
            "Checks of validations, by kind",
            ("kind of check", "made|count", "passed|count", "failed|count", "unverified|count"),
            checks,
        ),
        listing(
            "bad_checks",
            "Checks that failed, or could not be made",
            ("validated|time", "feed", "partition", "table", "check", "found|state"),
            [row[:-1] for row in bad_checks],
            total=bad_checks[0][-1] if bad_checks else 0,
        ),
        listing(
            "verifications",
            "Batches proven again",
            ("feed", "table", "made|count", *_OUTCOMES, "rows changed|count", "missing|count",
             "added|count"),
            again,
        ),
        listing(
            "audit_trail",
            "The audit trail in this range, of all feeds",
            ("entries|count", "first|count", "last|count", "hash of the last|code"),
            [row for row in trail if row[0]],
            note="Its chain was not verified for this report.",
        ),
    )  # fmt: skip
    return Content(computed + made + sum(row[2] for row in again), figures, tables)


def _compliance(rows: list[list[int]]) -> tuple[int | float | None, ...]:
    computed, compared, valid, invalid, size = (sum(column) for column in zip(*rows, strict=True))
    return (computed, compared, valid, invalid, share(valid, compared), size)
