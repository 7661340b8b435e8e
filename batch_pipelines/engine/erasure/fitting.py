"""Making the ledger fit bags that were rewritten: files, rejects and digests are those of today."""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING, Final

import numpy as np

from batch_pipelines.engine.digests.row_digest import RowDigest
from batch_pipelines.engine.errors import ErasureError
from batch_pipelines.engine.ledger import proofs

if TYPE_CHECKING:
    from batch_pipelines.engine.erasure.refilling import NewFile, Refilled
    from batch_pipelines.engine.ledger.erasures import Place
    from batch_pipelines.engine.postgres.database import Connection

# What the sender had promised of the file is not true of it any more. Its records stay counted as they
# were delivered: the balance says what became of each.
_FILE: Final = """
UPDATE batch_audit.import_file
SET size = %(size)s, crc32c = %(crc32c)s, sha256 = %(sha256)s, expected_crc32c = NULL,
    expected_source = NULL, expected_size = NULL, expected_digests = '{}'
WHERE batch_id = %(batch)s AND file_name = %(name)s
"""
# In two steps: numbers are unique while they change.
_MOVE_REJECTS: Final = """
WITH cut AS (
    SELECT * FROM unnest(%(records)s::bigint[], %(sizes)s::bigint[], %(lines)s::bigint[])
        AS c (record, size, lines))
UPDATE batch_audit.import_reject AS r
SET record_number = -(r.record_number - (SELECT count(*) FROM cut WHERE record < r.record_number)),
    byte_offset = r.byte_offset - (
        SELECT coalesce(sum(size), 0) FROM cut WHERE record < r.record_number),
    line_number = r.line_number - (
        SELECT coalesce(sum(lines), 0) FROM cut WHERE record < r.record_number)
WHERE batch_id = %(batch)s AND file_name = %(name)s
"""
_SETTLE_REJECTS: Final = """
UPDATE batch_audit.import_reject SET record_number = -record_number
WHERE batch_id = %s AND file_name = %s AND record_number < 0
"""
_CHUNK: Final = """
UPDATE batch_audit.row_digest
SET records = records - %(rows)s, digest_sum = digest_sum - %(total)s,
    digest_moment = digest_moment - %(moment)s
WHERE batch_id = %(batch)s AND target_table = %(table)s AND file_name = %(file)s AND chunk = %(chunk)s
"""
_MOVE_CHUNKS: Final = """
UPDATE batch_audit.row_digest
SET first_record = first_record - (
    SELECT count(*) FROM unnest(%(records)s::bigint[]) AS c (record) WHERE record < first_record)
WHERE batch_id = %(batch)s AND file_name = %(name)s
"""
_FEWER: Final = """
UPDATE batch_audit.batch_table
SET erased = coalesce(erased, 0) + %(rows)s, digest_sum = digest_sum - %(total)s,
    digest_moment = digest_moment - %(moment)s
WHERE batch_id = %(batch)s AND target_table = %(table)s
"""
_FEWER_WHOLE: Final = """
UPDATE batch_audit.whole_digest
SET records = records - %(rows)s, digest_sum = digest_sum - %(total)s,
    digest_moment = digest_moment - %(moment)s
WHERE batch_id = %(batch)s AND target_table = %(table)s
"""


def fit_delivered(connection: Connection, batch_id: str, done: Refilled) -> None:
    """Say of files, rejects and chunks what the rewritten bag of a delivery has.

    Args:
        connection: A connection inside the transaction that records the bag.
        batch_id: The batch.
        done: What the bag was filled with.
    """
    for (own, name), crcs in done.digests.items():
        chunks = sorted(
            (c for c in proofs.chunks(connection, batch_id, own) if c.file_name == name),
            key=lambda chunk: chunk.first_record,
        )
        first = [chunk.first_record for chunk in chunks]
        by_chunk: dict[int, list[int]] = {}
        for record, crc in crcs.items():
            place = max(bisect.bisect_right(first, record) - 1, 0)
            by_chunk.setdefault(chunks[place].chunk, []).append(crc)
        for chunk, gone in by_chunk.items():
            digest = RowDigest.of(np.asarray(gone, np.uint32))
            connection.execute(
                _CHUNK,
                {"batch": batch_id, "table": own, "file": name, "chunk": chunk, **_parts(digest)},
            )
    for file in done.files:
        _fit_file(connection, batch_id, file)


def fit_rows(connection: Connection, batch_id: str, done: Refilled, place: Place) -> None:
    """Say of the rows of an archived batch what its rewritten bag of rows has.

    Args:
        connection: A connection inside the transaction that records the bag.
        batch_id: The batch.
        done: What the bag was filled with.
        place: The bag.

    Raises:
        ErasureError: Rows are held otherwise than they were sent.
    """
    for table, digest in done.sent.items():
        if digest is None:
            message = (
                f"{place.place}: rows of {table} are held otherwise than they were sent, so what is "
                f"left of them could not be proven. Restore the batch (batch-pipelines restore "
                f"{batch_id[:8]}), and erase again."
            )
            raise ErasureError(message)
        record_fewer(connection, batch_id, table, digest)
        record_fewer_whole(connection, batch_id, table, done.whole[table])


def record_fewer(connection: Connection, batch_id: str, table: str, gone: RowDigest) -> None:
    """Take erased rows out of the digest of what a batch was sent, and count them.

    Args:
        connection: A connection inside the transaction in which they go.
        batch_id: The batch.
        table: The full name of their table.
        gone: The digest of those rows as they were sent.
    """
    connection.execute(_FEWER, {"batch": batch_id, "table": table, **_parts(gone)})


def record_fewer_whole(connection: Connection, batch_id: str, table: str, gone: RowDigest) -> None:
    """Take erased rows out of the digest over all columns; see `record_fewer`."""
    connection.execute(_FEWER_WHOLE, {"batch": batch_id, "table": table, **_parts(gone)})


def _parts(digest: RowDigest) -> dict[str, int]:
    return {"rows": digest.rows, "total": digest.total, "moment": digest.moment}


def _fit_file(connection: Connection, batch_id: str, file: NewFile) -> None:
    records = [cut.record for cut in file.cuts]
    wanted = {
        "batch": batch_id, "name": file.name, "size": file.size,
        "crc32c": file.crc32c, "sha256": file.sha256, "records": records,
        "sizes": [cut.size for cut in file.cuts], "lines": [cut.lines for cut in file.cuts],
    }  # fmt: skip
    connection.execute(_FILE, wanted)
    connection.execute(_MOVE_REJECTS, wanted)
    connection.execute(_SETTLE_REJECTS, (batch_id, file.name))
    connection.execute(_MOVE_CHUNKS, wanted)
