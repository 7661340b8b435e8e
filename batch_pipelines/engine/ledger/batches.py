"""Batches: their history, the runs that worked on them, and what has become of them.

Not here: how far each stage came, stages.py.
"""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from psycopg.rows import class_row, scalar_row
from psycopg.types.json import Jsonb

from batch_pipelines.engine.errors import FeedError
from batch_pipelines.engine.ledger import stages
from batch_pipelines.engine.ledger.batch_events import tell, tell_end, tell_with_root

if TYPE_CHECKING:
    from batch_pipelines.engine.causes import Cause
    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.postgres.database import Connection

Status = Literal[
    "IN_PROGRESS", "PUBLISHED", "SUCCESS", "PARTIAL_SUCCESS", "VALIDATION_FAILED", "FAILED",
    "DUPLICATE", "ROLLED_BACK", "SUPERSEDED", "ARCHIVED",
]  # fmt: skip

# Rows of these are visible in the target tables and count as the partition's content.
IN_FORCE = frozenset({"PUBLISHED", "SUCCESS", "PARTIAL_SUCCESS", "VALIDATION_FAILED"})
# The delivery is loaded: the same again changes nothing.
LOADED = IN_FORCE | {"ARCHIVED"}
# Nothing of these is visible, and a stage may go on with them.
UNFINISHED = frozenset({"IN_PROGRESS", "FAILED"})


@dataclass(frozen=True)
class Batch:
    """One attempt at loading a delivery, as `import_history` has it; see docs/ledger.md."""

    batch_id: str
    job_id: str
    adopted_from: str | None
    feed: str
    feed_version: int
    partition_key: str
    status: str
    attempt: int
    identity: str | None
    duplicate_of: str | None
    fingerprint: str | None
    requested_by: str
    correlation_id: str
    source_records: int | None
    written_records: int | None
    rejected_records: int | None
    skipped_records: int | None
    critical_records: int | None
    started_at: dt.datetime
    published_at: dt.datetime | None
    completed_at: dt.datetime | None
    superseded_by: str | None
    error_details: str | None
    failure_cause: str | None
    rolled_back_at: dt.datetime | None
    rolled_back_by: str | None
    rollback_reason: str | None
    rollback_possible_until: dt.datetime | None

    @property
    def name(self) -> str:
        """Feed and partition key, as people refer to a partition."""
        return f"{self.feed}/{self.partition_key}"


_BATCH = """
SELECT batch_id::text, job_id, adopted_from,
       feed, feed_version, partition_key, status, attempt, identity,
       duplicate_of::text, fingerprint, requested_by, correlation_id, source_records,
       written_records, rejected_records, skipped_records, critical_records, started_at,
       published_at, completed_at,
       superseded_by::text, error_details, failure_cause, rolled_back_at, rolled_back_by,
       rollback_reason, rollback_possible_until
FROM batch_audit.import_history
"""
_BY_ID = _BATCH + "WHERE batch_id = %s"
_BY_RUN = _BATCH + "WHERE batch_id = (SELECT batch_id FROM batch_audit.batch_run WHERE run_id = %s)"
_LAST = _BATCH + "WHERE feed = %s AND partition_key = %s ORDER BY attempt DESC LIMIT 1"
_IN_FORCE = _BATCH + (
    "WHERE feed = %s AND partition_key = %s AND status = ANY(%s) ORDER BY attempt DESC LIMIT 1"
)
_SAME_CONTENT = _BATCH + (
    "WHERE feed = %s AND identity = %s AND status = ANY(%s) ORDER BY started_at DESC LIMIT 1"
)
_BY_PREFIX = _BATCH + "WHERE batch_id::text LIKE %s || '%%' LIMIT 2"
_LIST = _BATCH + (
    "WHERE (%(feed)s::text IS NULL OR feed = %(feed)s)"
    " AND (%(status)s::text IS NULL OR status = %(status)s)"
    " ORDER BY started_at DESC, attempt DESC LIMIT %(limit)s"
)
_IN_PROGRESS = _BATCH + (
    "WHERE feed = %s AND partition_key = %s AND status = 'IN_PROGRESS' ORDER BY attempt"
)
# Those that no stage can go on with: a failed one is resumed only while it is the newest, one in
# force is read until it is archived.
_FINISHED = """
SELECT batch_id::text FROM batch_audit.import_history AS h
WHERE feed = %(feed)s AND partition_key = %(key)s AND (
    status IN ('DUPLICATE', 'SUPERSEDED', 'ROLLED_BACK', 'ARCHIVED')
    OR (status = 'FAILED' AND batch_id IS DISTINCT FROM %(newest)s::uuid)
    OR (status IN ('SUCCESS', 'PARTIAL_SUCCESS') AND EXISTS (
        SELECT FROM batch_audit.batch_stage AS s
        WHERE s.batch_id = h.batch_id AND stage = 'archive' AND s.status = 'SUCCESS')))
"""
_ENSURE_MONTHS = """
SELECT batch_audit.ensure_month('batch_audit.crc32_audit', clock_timestamp()),
       batch_audit.ensure_month('batch_audit.crc32_audit', clock_timestamp() + interval '1 month'),
       batch_audit.ensure_month('batch_audit.row_event', clock_timestamp()),
       batch_audit.ensure_month('batch_audit.row_event', clock_timestamp() + interval '1 month'),
       batch_audit.ensure_audit_month(clock_timestamp() + interval '1 month')
"""
_START = """
INSERT INTO batch_audit.import_history (batch_id, job_id, feed, feed_version, partition_key, status,
    attempt, requested_by, correlation_id, compliance_context)
SELECT %(batch_id)s::uuid, %(batch_id)s::uuid::text, %(feed)s::text, %(version)s, %(key)s::text,
       'IN_PROGRESS', coalesce(max(attempt), 0) + 1, %(requested_by)s, %(correlation_id)s,
       %(compliance)s
FROM batch_audit.import_history WHERE feed = %(feed)s AND partition_key = %(key)s
"""
_ATTACH = """
INSERT INTO batch_audit.batch_run (run_id, batch_id) VALUES (%s, %s)
ON CONFLICT (run_id) DO UPDATE SET batch_id = excluded.batch_id
"""
_RUNS = "SELECT run_id::text FROM batch_audit.batch_run WHERE batch_id = %s ORDER BY attached_at"
_SEEN = "UPDATE batch_audit.import_history SET fingerprint = %s WHERE batch_id = %s"
_INGESTED = "UPDATE batch_audit.import_history SET identity = %s WHERE batch_id = %s"
_DUPLICATE = """
UPDATE batch_audit.import_history
SET status = 'DUPLICATE', duplicate_of = %s, written_records = 0, completed_at = clock_timestamp()
WHERE batch_id = %s
"""
_FAIL = """
UPDATE batch_audit.import_history
SET status = 'FAILED', error_details = %s, failure_cause = %s, completed_at = clock_timestamp()
WHERE batch_id = %s AND status IN ('IN_PROGRESS', 'FAILED')
"""
_RESUME = """
UPDATE batch_audit.import_history SET status = 'IN_PROGRESS', completed_at = NULL
WHERE batch_id = %s AND status = 'FAILED'
"""
_COUNTED = "UPDATE batch_audit.import_history SET source_records = %s WHERE batch_id = %s"
_REPLAYED = """
UPDATE batch_audit.import_history
SET status = 'PUBLISHED', status_before = NULL, written_records = written_records + %(loaded)s,
    published_xids = published_xids || pg_current_xact_id(),
    rejected_records = rejected_records - %(loaded)s, error_details = NULL, failure_cause = NULL,
    completed_at = NULL
WHERE batch_id = %(batch_id)s
"""
_VOLUME = """
UPDATE batch_audit.import_history
SET source_bytes = %s, wal_bytes = pg_wal_lsn_diff(pg_current_wal_insert_lsn(), %s::pg_lsn),
    publish_seconds = extract(epoch FROM clock_timestamp() - transaction_timestamp())
WHERE batch_id = %s
"""
_REJECTED = "UPDATE batch_audit.import_history SET rejected_records = %s WHERE batch_id = %s"
_PUBLISHED = """
UPDATE batch_audit.import_history
SET status = 'PUBLISHED', published_at = clock_timestamp(), written_records = %s,
    rejected_records = %s, skipped_records = %s, error_details = NULL, failure_cause = NULL,
    completed_at = NULL, published_xids = ARRAY[pg_current_xact_id()]
WHERE batch_id = %s
"""
_SUPERSEDED = """
UPDATE batch_audit.import_history
SET status_before = status, status = 'SUPERSEDED', superseded_by = %s WHERE batch_id = %s
"""
# Its rows are in the archive, so there is nothing else to take away.
_ARCHIVED_SUPERSEDED = """
UPDATE batch_audit.import_history
SET status_before = status, status = 'SUPERSEDED', superseded_by = %(by)s
WHERE feed = %(feed)s AND partition_key = %(key)s AND status = 'ARCHIVED' RETURNING batch_id::text
"""
_INVALID = """
UPDATE batch_audit.import_history
SET status = 'VALIDATION_FAILED', status_before = NULL, error_details = %s,
    failure_cause = 'validation', completed_at = clock_timestamp()
WHERE batch_id = %s
"""
_VALID = """
UPDATE batch_audit.import_history AS h
SET status = CASE WHEN rejected_records > 0 OR EXISTS (
        SELECT FROM batch_audit.import_file AS f WHERE f.batch_id = h.batch_id AND f.set_aside)
    THEN 'PARTIAL_SUCCESS' ELSE 'SUCCESS' END,
    status_before = NULL, error_details = NULL, failure_cause = NULL,
    completed_at = clock_timestamp()
WHERE batch_id = %s
"""
_WAITING = """
UPDATE batch_audit.import_history
SET rejected_records = %s, skipped_records = %s, error_details = NULL WHERE batch_id = %s
"""
_REPLAY_WAITING = """
UPDATE batch_audit.import_history
SET status_before = coalesce(status_before, status), status = 'PUBLISHED', error_details = NULL,
    completed_at = NULL
WHERE batch_id = %s
"""
_REPLAY_REFUSED = """
UPDATE batch_audit.import_history
SET status = status_before, status_before = NULL, error_details = %s, completed_at = clock_timestamp()
WHERE batch_id = %s
"""
_WHY = "UPDATE batch_audit.import_history SET error_details = %s WHERE batch_id = %s"


def start(
    connection: Connection,
    feed: Feed,
    key: str,
    run_id: str,
    *,
    requested_by: str,
    correlation_id: str,
) -> Batch:
    """Open a batch for a run; its id is the run's.

    Args:
        connection: A connection in autocommit mode.
        feed: The feed.
        key: Partition key.
        run_id: Id of the Dagster run, a UUID.
        requested_by: Who asked for it.
        correlation_id: Ties it to what asked for it; the run id of the first run as a rule.

    Returns:
        The batch, `IN_PROGRESS`.
    """
    with connection.transaction():
        connection.execute(_ENSURE_MONTHS)
        wanted = {
            "batch_id": run_id,
            "feed": feed.feed,
            "version": feed.version,
            "key": key,
            "requested_by": requested_by,
            "correlation_id": correlation_id,
            "compliance": Jsonb(feed.compliance.context) if feed.compliance.context else None,
        }
        connection.execute(_START, wanted)
        connection.execute(_ATTACH, (run_id, run_id))
    return by_id(connection, run_id)


def imagined(feed: Feed, key: str, run_id: str) -> Batch:
    """Describe a batch as it would begin, of which the ledger hears nothing.

    Args:
        feed: The feed.
        key: Partition key.
        run_id: What its id would be.

    Returns:
        The batch.
    """
    return Batch(
        batch_id=run_id, job_id=run_id, adopted_from=None,
        feed=feed.feed, feed_version=feed.version, partition_key=key,
        status="IN_PROGRESS", attempt=0, identity=None, duplicate_of=None, fingerprint=None,
        requested_by="", correlation_id=run_id, source_records=None, written_records=None,
        rejected_records=None, skipped_records=None, critical_records=None,
        started_at=dt.datetime.now(dt.UTC),
        published_at=None, completed_at=None, superseded_by=None, error_details=None, failure_cause=None,
        rolled_back_at=None, rolled_back_by=None, rollback_reason=None, rollback_possible_until=None,
    )  # fmt: skip


def attach(connection: Connection, run_id: str, batch: Batch) -> None:
    """Write down that a run works on a batch."""
    connection.execute(_ATTACH, (run_id, batch.batch_id))


def runs(connection: Connection, batch_id: str) -> list[str]:
    """List the runs that worked on a batch, first one first."""
    with connection.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(_RUNS, (batch_id,)).fetchall()


def by_id(connection: Connection, batch_id: str) -> Batch:
    """Read one batch by its id.

    Raises:
        FeedError: There is none.
    """
    batch = _one(connection, _BY_ID, batch_id)
    if batch is None:
        message = f"There is no batch {batch_id}. `batch-pipelines batches` lists them."
        raise FeedError(message)
    return batch


def known(connection: Connection, batch_id: str) -> Batch | None:
    """Read a batch by its id, which may be any text; None where there is none."""
    try:
        uuid.UUID(batch_id)
    except ValueError:
        return None
    return _one(connection, _BY_ID, batch_id)


def of_run(connection: Connection, run_id: str) -> Batch | None:
    """Read the batch a run is attached to."""
    return _one(connection, _BY_RUN, run_id)


def last_attempt(connection: Connection, feed: str, key: str) -> Batch | None:
    """Read the last attempt at a partition, also where it is a duplicate."""
    return _one(connection, _LAST, feed, key)


def newest(connection: Connection, feed: str, key: str) -> Batch | None:
    """Read the batch that the newest delivery of a partition stands for.

    Args:
        connection: A connection.
        feed: Name of the feed.
        key: Partition key.

    Returns:
        The last attempt; where that is a duplicate of another batch of the partition, the other.
        None where there was no attempt.
    """
    batch = last_attempt(connection, feed, key)
    if batch is None or batch.duplicate_of is None:
        return batch
    original = by_id(connection, batch.duplicate_of)
    # With `identity: feed` it may be another partition's, which this one has no lease on.
    return original if original.partition_key == key else batch


def in_force(connection: Connection, feed: str, key: str) -> Batch | None:
    """Read the batch whose rows are the partition's content now."""
    return _one(connection, _IN_FORCE, feed, key, list(IN_FORCE))


def same_content(connection: Connection, feed: str, identity: str) -> Batch | None:
    """Read the batch that loaded the same delivery and is in force, or in the archive."""
    return _one(connection, _SAME_CONTENT, feed, identity, list(LOADED))


def find(connection: Connection, reference: str) -> Batch:
    """Find a batch by id, unique prefix of an id, or FEED/KEY (its newest batch).

    Args:
        connection: A connection.
        reference: What somebody typed.

    Returns:
        The batch.

    Raises:
        FeedError: None matches, or several.
    """
    if "/" in reference:
        feed, key = reference.split("/", 1)
        batch = newest(connection, feed, key)
        if batch is not None:
            return batch
        message = f"There is no batch of {reference}. `batch-pipelines batches` lists them."
        raise FeedError(message)
    # Only what an id can hold: the prefix is the left side of a LIKE.
    plain = set(reference) <= set("0123456789abcdef-") and reference
    with connection.cursor(row_factory=class_row(Batch)) as cursor:
        found = cursor.execute(_BY_PREFIX, (reference,)).fetchall() if plain else []
    if len(found) == 1:
        return found[0]
    problem = "Several batch ids begin" if found else "No batch id begins"
    message = f"{problem} with {reference!r}. `batch-pipelines batches` lists them."
    raise FeedError(message)


def history(
    connection: Connection,
    *,
    feed: str | None = None,
    status: str | None = None,
    limit: int = 100,
) -> list[Batch]:
    """List batches, newest first, of one feed or status if asked."""
    with connection.cursor(row_factory=class_row(Batch)) as cursor:
        wanted = {"feed": feed, "status": status, "limit": limit}
        return cursor.execute(_LIST, wanted).fetchall()


def in_progress(connection: Connection, feed: str, key: str) -> list[Batch]:
    """List a partition's batches in progress, the first attempt first."""
    with connection.cursor(row_factory=class_row(Batch)) as cursor:
        return cursor.execute(_IN_PROGRESS, (feed, key)).fetchall()


def finished(connection: Connection, feed: str, key: str) -> list[str]:
    """List the ids of a partition's batches that no stage can go on with any more."""
    batch = newest(connection, feed, key)
    wanted = {"feed": feed, "key": key, "newest": batch.batch_id if batch else None}
    with connection.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(_FINISHED, wanted).fetchall()


def record_fingerprint(connection: Connection, batch_id: str, fingerprint: str) -> None:
    """Keep what tells the delivery, as landed, from others of its partition."""
    connection.execute(_SEEN, (fingerprint, batch_id))


def record_identity(connection: Connection, batch_id: str, identity: str) -> None:
    """Keep what identifies the delivery by its content."""
    connection.execute(_INGESTED, (identity, batch_id))


def mark_duplicate(connection: Connection, batch_id: str, of: str) -> None:
    """End a batch whose content is in force already, and its ingest with it."""
    with connection.transaction():
        connection.execute(_DUPLICATE, (of, batch_id))
        stages.end(connection, batch_id, "ingest")
        tell(connection, batch_id, "duplicate", "SUCCESS", duplicate_of=of)
        tell_end(connection, batch_id)


def mark_failed(connection: Connection, batch_id: str, why: str, cause: Cause) -> None:
    """End a batch of which nothing is visible; one that is visible is left as it is."""
    with connection.transaction():
        if connection.execute(_FAIL, (why, cause, batch_id)).rowcount:
            tell_end(connection, batch_id)


def resume(connection: Connection, batch_id: str) -> None:
    """Take a failed batch up again."""
    connection.execute(_RESUME, (batch_id,))


def record_source_records(connection: Connection, batch_id: str, records: int) -> None:
    """Keep the independent count of the source's records."""
    connection.execute(_COUNTED, (records, batch_id))


def wal_position(connection: Connection) -> str:
    """Say how far the server's write-ahead log has come."""
    row = connection.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
    return str(row[0]) if row else "0/0"


def record_volume(connection: Connection, batch_id: str, *, source_bytes: int, since: str) -> None:
    """Keep how much was read, and how much log and time of the server it took, before the COMMIT.

    Args:
        connection: The publishing connection.
        batch_id: The batch.
        source_bytes: Size of its files in bytes.
        since: Position of the write-ahead log before the first row.
    """
    connection.execute(_VOLUME, (source_bytes, since, batch_id))


def record_rejected(connection: Connection, batch_id: str, rejected: int) -> None:
    """Keep how many records of a batch were set aside of which nothing is published."""
    connection.execute(_REJECTED, (rejected, batch_id))


def mark_published(
    connection: Connection, batch_id: str, written: int, rejected: int, skipped: int
) -> None:
    """Say that the batch is visible and its bulk-write done; called inside the publish transaction.

    Said after the COMMIT, the end of the stage would be missing where the run is killed in between.
    """
    connection.execute(_PUBLISHED, (written, rejected, skipped, batch_id))
    stages.end(connection, batch_id, "bulk_write")
    tell(connection, batch_id, "publish.done", "SUCCESS", written=written, rejected=rejected)


def mark_replayed(connection: Connection, batch_id: str, loaded: int, *, validated: bool) -> None:
    """Say that a replay has made more of a batch visible.

    Args:
        connection: The publishing connection, when the batch's details are as the replay leaves them.
        batch_id: The batch.
        loaded: Records that were loaded.
        validated: Whether they were validated before, so that the batch ends in this transaction, too;
            else it is to be validated and archived anew, and may never come to that.
    """
    connection.execute(_REPLAYED, {"batch_id": batch_id, "loaded": loaded})
    stages.end(connection, batch_id, "bulk_write")
    if validated:
        tell(connection, batch_id, "replay.done", "SUCCESS", loaded=loaded)
    else:
        stages.forget_validation(connection, batch_id)
        tell_with_root(connection, batch_id, "replay.done", "SUCCESS", loaded=loaded)


def mark_superseded(connection: Connection, batch_id: str, by: str) -> None:
    """Say that another batch has taken its place; called inside the publish transaction."""
    connection.execute(_SUPERSEDED, (by, batch_id))
    tell(connection, batch_id, "superseded", "SUCCESS", superseded_by=by)


def supersede_archived(connection: Connection, batch: Batch) -> bool:
    """Say that a batch has taken the place of one in the archive, inside its publish transaction.

    Args:
        connection: The publishing connection.
        batch: The new batch.

    Returns:
        Whether there was one.
    """
    wanted = {"by": batch.batch_id, "feed": batch.feed, "key": batch.partition_key}
    found = connection.execute(_ARCHIVED_SUPERSEDED, wanted).fetchall()
    for (batch_id,) in found:
        tell(connection, batch_id, "superseded", "SUCCESS", superseded_by=batch.batch_id)
    return bool(found)


def mark_waiting(connection: Connection, batch_id: str, rejected: int, skipped: int) -> None:
    """Say that the batch's rows wait for validation, and that its bulk-write is done.

    Called inside the transaction that stages them.
    """
    connection.execute(_WAITING, (rejected, skipped, batch_id))
    stages.end(connection, batch_id, "bulk_write")


def mark_replay_waiting(connection: Connection, batch_id: str) -> None:
    """Say that records to be replayed wait, so the batch is to be validated and archived anew.

    Called inside the transaction that stages them.
    """
    connection.execute(_REPLAY_WAITING, (batch_id,))
    stages.forget_validation(connection, batch_id)
    stages.end(connection, batch_id, "bulk_write")


def mark_replay_refused(connection: Connection, batch_id: str, why: str) -> None:
    """Say that records to be replayed did not pass validation: the batch is what it was before."""
    connection.execute(_REPLAY_REFUSED, (why, batch_id))
    stages.end(connection, batch_id, "validate", why, "validation")
    tell_end(connection, batch_id)


def mark_valid(connection: Connection, batch_id: str) -> None:
    """Keep that validation has passed, which ends the stage: a success, if only in part."""
    with connection.transaction():
        connection.execute(_VALID, (batch_id,))
        stages.end(connection, batch_id, "validate")
        tell_end(connection, batch_id)


def mark_invalid(connection: Connection, batch_id: str, why: str) -> None:
    """Keep that validation of what is visible has failed, which ends the stage."""
    with connection.transaction():
        connection.execute(_INVALID, (why, batch_id))
        stages.end(connection, batch_id, "validate")
        tell_end(connection, batch_id)


def record_why(connection: Connection, batch_id: str, why: str) -> None:
    """Keep more of why a batch ended as it did."""
    with connection.transaction():
        connection.execute(_WHY, (why, batch_id))
        tell(connection, batch_id, "explained", "SUCCESS")


def _one(connection: Connection, query: str, *parameters: object) -> Batch | None:
    with connection.cursor(row_factory=class_row(Batch)) as cursor:
        return cursor.execute(query, parameters).fetchone()
