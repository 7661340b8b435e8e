"""Versions of a feed's signature, and what each batch's delivery was against the version in force.

A version counts only while a batch that brought it is published and not rolled back: it is written in
the publish transaction, with the rows.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from psycopg.types.json import Jsonb

from batch_pipelines.engine.errors import PublishError
from batch_pipelines.engine.signatures import (
    Change,
    FeedSignature,
    SignedColumn,
    Version,
    described,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.signatures import Comparison

# Records of JSON may have any number of keys that no table knows; a table has 1,600 columns at most.
_CHANGES = 10_000
_IN_FORCE = """
SELECT DISTINCT ON (s.target_table) s.target_table, s.version, s.columns
FROM batch_audit.feed_signature AS s
WHERE s.feed = %(feed)s AND EXISTS (
    SELECT FROM batch_audit.signature_event AS e JOIN batch_audit.import_history AS h USING (batch_id)
    WHERE (e.feed, e.target_table, e.version) = (s.feed, s.target_table, s.version)
      AND h.published_at IS NOT NULL AND h.status <> 'ROLLED_BACK'
      AND h.batch_id IS DISTINCT FROM %(but)s::uuid)
ORDER BY s.target_table, s.version DESC
"""
_NUMBERED = """
SELECT version, columns FROM batch_audit.feed_signature
WHERE feed = %s AND target_table = %s AND version = %s
"""
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('signature/' || %s, 0))"
_ADD = """
INSERT INTO batch_audit.feed_signature (feed, target_table, version, columns, signature_hash, batch_id)
SELECT %(feed)s, %(table)s, coalesce(max(version), 0) + 1, %(columns)s, %(hash)s, %(batch_id)s
FROM batch_audit.feed_signature WHERE feed = %(feed)s AND target_table = %(table)s
RETURNING version
"""
_FORGET = "DELETE FROM batch_audit.signature_event WHERE batch_id = %s"
_ADD_EVENT = """
INSERT INTO batch_audit.signature_event (batch_id, feed, target_table, verdict, previous_version,
    version, signature_hash, changes, not_loaded)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
"""
_EVENTS = """
SELECT target_table, verdict, previous_version, version, signature_hash, changes, not_loaded
FROM batch_audit.signature_event WHERE batch_id = %s ORDER BY target_table
"""


@dataclass(frozen=True)
class SignatureEvent:
    """What a batch's delivery to a table was against the version of the signature in force.

    Attributes:
        target_table: The table.
        verdict: `same`, `compatible` or `breaking`.
        previous_version: The version it was compared with; None for a first delivery.
        version: The version it was loaded as; None where it was refused, or its rows wait.
        signature_hash: Compatibility hash of what it brought.
        changes: What differed, by column.
        not_loaded: The columns that were left out, as the table would name them.
    """

    target_table: str
    verdict: str
    previous_version: int | None
    version: int | None
    signature_hash: str
    changes: tuple[Change, ...]
    not_loaded: tuple[str, ...]

    def __str__(self) -> str:
        became = "not published" if self.version is None else f"loaded as version {self.version}"
        return f"{described(self.target_table, self.verdict, self.previous_version)}; {became}"


def in_force(connection: Connection, feed: str, *, but: str | None = None) -> dict[str, Version]:
    """Read the newest versions that published batches brought.

    Args:
        connection: A connection.
        feed: Name of the feed.
        but: Id of a batch that does not count.

    Returns:
        The version of each table that has one, by its name.
    """
    rows = connection.execute(_IN_FORCE, {"feed": feed, "but": but}).fetchall()
    return {str(table): _version(number, columns) for table, number, columns in rows}


def numbered(connection: Connection, feed: str, table: str, number: int | None) -> Version | None:
    """Read one version of a feed's signature for a table, None where there is no such one."""
    row = connection.execute(_NUMBERED, (feed, table, number)).fetchone()
    return None if row is None else _version(*row)


def _version(number: int, columns: Iterable[dict[str, str]]) -> Version:
    return Version(number, FeedSignature(tuple(SignedColumn(**column) for column in columns)))


def record(connection: Connection, batch: Batch, comparisons: Iterable[Comparison]) -> None:
    """Keep what a batch's delivery was; called inside the publish transaction.

    Where it makes a new version, batches of a feed that are published at once wait for each other here,
    and are compared with what the other one has brought.

    Args:
        connection: The publishing connection.
        batch: The batch.
        comparisons: What it brings to each table, as it was loaded.

    Raises:
        PublishError: Against what another batch has brought since, other columns were to be loaded.
    """
    connection.execute(_FORGET, (batch.batch_id,))
    every = [*comparisons]
    now = in_force(connection, batch.feed, but=batch.batch_id)
    if any(_is_new(loaded, now) for loaded in every):
        connection.execute(_LOCK, (batch.feed,))
        now = in_force(connection, batch.feed, but=batch.batch_id)
    for loaded in every:
        comparison = loaded.against(now.get(loaded.table.full_name))
        if comparison.frozen or comparison.left_out != loaded.left_out:
            message = (
                f"{batch.name}: while it was loaded, another batch brought other columns to "
                f"{loaded.table.full_name}; nothing was written. Run again."
            )
            raise PublishError(message)
        before, table = comparison.terms.in_force, loaded.table.full_name
        if before is None or _is_new(loaded, now):
            version = _add(connection, batch, table, comparison.taken)
        else:
            version = before.number
        _record(connection, batch, comparison, version)


def _is_new(loaded: Comparison, now: Mapping[str, Version]) -> bool:
    """Say whether a delivery makes a new version."""
    before = now.get(loaded.table.full_name)
    return before is None or before.signature.hash != loaded.against(before).taken.hash


def record_refused(connection: Connection, batch: Batch, comparison: Comparison) -> None:
    """Keep why a batch's delivery was refused, in place of what an earlier try of it has left.

    Args:
        connection: A connection.
        batch: The batch.
        comparison: What it brings to the table that refused it.
    """
    connection.execute(_FORGET, (batch.batch_id,))
    _record(connection, batch, comparison, None)


def record_waiting(connection: Connection, batch: Batch, comparisons: Iterable[Comparison]) -> None:
    """Keep what the delivery is of a batch whose rows wait; no version comes of it before the publish.

    Args:
        connection: A connection, inside the transaction that stages the rows.
        batch: The batch.
        comparisons: What it brings to each table.
    """
    connection.execute(_FORGET, (batch.batch_id,))
    for comparison in comparisons:
        _record(connection, batch, comparison, None)


def _add(connection: Connection, batch: Batch, table: str, signature: FeedSignature) -> int | None:
    wanted = {
        "feed": batch.feed, "table": table, "hash": signature.hash, "batch_id": batch.batch_id,
        "columns": Jsonb([asdict(column) for column in signature.columns]),
    }  # fmt: skip
    row = connection.execute(_ADD, wanted).fetchone()
    return None if row is None else int(row[0])


def _record(
    connection: Connection, batch: Batch, comparison: Comparison, version: int | None
) -> None:
    event = (
        batch.batch_id, batch.feed, comparison.table.full_name, comparison.verdict,
        comparison.previous, version, comparison.signature.hash,
        Jsonb([asdict(change) for change in comparison.changes[:_CHANGES]]), sorted(comparison.left_out),
    )  # fmt: skip
    connection.execute(_ADD_EVENT, event)


def events(connection: Connection, batch_id: str) -> list[SignatureEvent]:
    """Read what a batch's delivery was against the versions in force, by table."""
    rows = connection.execute(_EVENTS, (batch_id,)).fetchall()
    return [
        SignatureEvent(
            table, verdict, previous, version, own_hash,
            tuple(Change(**change) for change in changes), tuple(not_loaded),
        )
        for table, verdict, previous, version, own_hash, changes, not_loaded in rows
    ]  # fmt: skip
