"""An entry of the audit trail, and its hash: computed here, not asked of PostgreSQL."""

from __future__ import annotations

import datetime as dt
import hashlib
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg.rows import class_row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batch_pipelines.engine.postgres.database import Connection

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)
_NULL = b"\xff\xff\xff\xff"
# An entry is some hundred bytes; so many are on their way at once.
_AT_ONCE = 2000

# jsonb as PostgreSQL writes it: its text is what is hashed, whatever a number means to Python.
_ENTRIES = """
SELECT seq, prev_hash, hash, created_at, principal_id, action, status, resource_type, resource_id,
       correlation_id, session_context::text, compliance_context::text, details::text
FROM batch_audit.audit_event
"""
_ALL = _ENTRIES + "ORDER BY seq, created_at"
_OF_MONTH = (
    _ENTRIES
    + """
WHERE created_at >= %(month)s::timestamp AT TIME ZONE 'UTC'
    AND created_at < (%(month)s::date + interval '1 month') AT TIME ZONE 'UTC'
ORDER BY seq
"""
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry, as it is stored.

    Attributes:
        seq: Its place in the chain, from 1.
        prev_hash: What it says the hash of the entry before it is.
        hash: What it says its own hash is.
        created_at: When it was chained, with time zone.
        principal_id: Who did it.
        action: What was done.
        status: How it ended.
        resource_type: What it was done to.
        resource_id: Which one.
        correlation_id: What belongs together.
        session_context: From where, as the text of a JSON object; None where nothing is known.
        compliance_context: Under which rules, as the text of a JSON object.
        details: The rest, as the text of a JSON object.
    """

    seq: int
    prev_hash: bytes
    hash: bytes
    created_at: dt.datetime
    principal_id: str
    action: str
    status: str
    resource_type: str
    resource_id: str
    correlation_id: str | None
    session_context: str | None
    compliance_context: str | None
    details: str

    def computed_hash(self) -> bytes:
        """Compute the SHA-256 of its fields, each framed by its length; docs/audit.md has it."""
        texts = (
            self.principal_id, self.action, self.status, self.resource_type, self.resource_id,
            self.correlation_id, self.session_context, self.compliance_context, self.details,
        )  # fmt: skip
        digest = hashlib.sha256()
        digest.update(framed(struct.pack(">q", self.seq)))
        digest.update(framed(self.prev_hash))
        microseconds = (self.created_at - _EPOCH) // _MICROSECOND
        digest.update(framed(struct.pack(">q", microseconds)))
        for text in texts:
            digest.update(framed(None if text is None else text.encode()))
        return digest.digest()


def framed(value: bytes | None) -> bytes:
    """Frame a field: its length in bytes (int32, big-endian; -1 of a null), and the bytes."""
    return _NULL if value is None else struct.pack(">i", len(value)) + value


def entries(connection: Connection, month: dt.date | None = None) -> Iterator[Entry]:
    """Read the audit trail, a piece at a time.

    Args:
        connection: A connection inside a transaction.
        month: First day of a month, to read that one; None for all.

    Yields:
        The entries that are in the database, by number.
    """
    with connection.cursor("audit_entries", row_factory=class_row(Entry)) as cursor:
        cursor.itersize = _AT_ONCE
        if month is None:
            yield from cursor.execute(_ALL)
        else:
            yield from cursor.execute(_OF_MONTH, {"month": month})
