"""Sealed months of the audit trail, and what is kept of those whose entries have left the database."""

from __future__ import annotations

import datetime as dt  # noqa: TC003  # psycopg's row factory makes what the dataclass says
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg.rows import class_row

from batch_pipelines.engine.audit.chain import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batch_pipelines.engine.postgres.database import Connection

_ALL = """
SELECT month, first_seq, last_seq, entries, first_prev_hash, last_hash, root, place, tagmanifest_sha256,
       removed_at
FROM batch_audit.audit_segment ORDER BY first_seq
"""
# What entries say of segments, against what is kept of them.
_DIFFERING = """
WITH last AS (
    SELECT DISTINCT ON (resource_id) resource_id, seq, details -> 'segment' AS told
    FROM batch_audit.audit_event
    WHERE resource_type = 'segment' AND details ? 'segment' ORDER BY resource_id, seq DESC),
kept AS (
    SELECT to_char(month, 'YYYY-MM') AS month, batch_audit.segment_facts(month) AS found
    FROM batch_audit.audit_segment)
SELECT coalesce(resource_id, month), seq, told, found FROM last FULL JOIN kept ON resource_id = month
WHERE told IS DISTINCT FROM found ORDER BY seq NULLS FIRST, 1
"""


@dataclass(frozen=True)
class Segment:
    """A sealed month, as `audit_segment` has it.

    Attributes:
        month: Its first day.
        first_seq, last_seq: Numbers of its first and last entries.
        entries: How many there are.
        first_prev_hash: What the first one refers to.
        last_hash: Hash of the last one.
        root: What all of their hashes come to; see `add_to_root`.
        place: The bag that has the entries since they left the database; else None.
        tagmanifest_sha256: SHA-256, hex, of that bag's tag manifest.
        removed_at: When they left it; None while they are there.
    """

    month: dt.date
    first_seq: int
    last_seq: int
    entries: int
    first_prev_hash: bytes
    last_hash: bytes
    root: bytes
    place: str | None
    tagmanifest_sha256: str | None
    removed_at: dt.datetime | None

    @property
    def name(self) -> str:
        """The month, as events name it."""
        return f"{self.month:%Y-%m}"


def segments(connection: Connection) -> list[Segment]:
    """Read the sealed months, the first one first."""
    with connection.cursor(row_factory=class_row(Segment)) as cursor:
        return cursor.execute(_ALL).fetchall()


def differences(connection: Connection) -> Iterator[Finding]:
    """Find the segments of which the ledger does not keep what the trail says.

    Args:
        connection: A connection inside a transaction.

    Yields:
        Each that differs, is gone, or of which the trail knows nothing.
    """
    for month, seq, told, found in connection.execute(_DIFFERING).fetchall():
        if told is None:
            what = f"audit_segment has {month}, and the trail knows nothing of it"
        elif found is None:
            what = f"the sealed month {month} of the trail is gone from audit_segment"
        else:
            names = [name for name in sorted({*told, *found}) if told.get(name) != found.get(name)]
            what = f"audit_segment has another {', '.join(names)} of {month} than the trail"
        yield Finding(seq, "segment", what)
