"""What a bag holds: source files, rejects, row digests, the feed as it was, an extract of the ledger."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Final, LiteralString

from psycopg import sql
from psycopg.rows import scalar_row

from batch_pipelines.engine.archiving.bag import DIGESTS, REJECTS, SOURCE
from batch_pipelines.engine.archiving.kept_feed import keep_feed
from batch_pipelines.engine.audit import anchors
from batch_pipelines.engine.errors import ArchiveError
from batch_pipelines.engine.ledger import files, rejects
from batch_pipelines.engine.ledger.reject_files import write_parquet

if TYPE_CHECKING:
    from pathlib import Path

    from batch_pipelines.engine.archiving.packing import Packing
    from batch_pipelines.engine.audit.anchors import Anchor
    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.work import Work

FEED: Final = "feed"
"""Folder of the feed file, as it was when the batch was loaded."""
EXTRACT: Final = "ledger"
"""Folder of what the ledger says."""
# What the ledger holds of a batch, whole rows, and in which order. None of it has a value of a row, but
# for keys of rows that differ. The audit trail's entries, and an anchor of it, stand beside it.
_EXTRACT: Final[dict[str, LiteralString]] = {
    "import_history": "attempt",
    "batch_run": "attached_at",
    "batch_stage": "started_at",
    "import_file": "file_name",
    "batch_table": "target_table",
    "batch_column": "target_table, place",
    "whole_digest": "target_table",
    "batch_signature": "id",
    "signature_event": "target_table",
    "row_digest": "target_table, file_name, chunk",
    "validation_log": "id",
    "validation_summary": "log_id",
}
_ROWS = sql.SQL("""
SELECT jsonb_pretty(coalesce(jsonb_agg(to_jsonb(t) ORDER BY {order}), '[]'))
FROM batch_audit.{table} AS t WHERE batch_id = {batch_id}
""")
# Those of rows may be millions, and the bag has the digest of each anyway.
_CHECKSUMS = sql.SQL("""
SELECT jsonb_pretty(coalesce(jsonb_agg(to_jsonb(t) ORDER BY created_at, id), '[]'))
FROM batch_audit.crc32_audit AS t WHERE batch_id = {batch_id} AND entity_type <> 'row'
""")
_EVENTS = sql.SQL("""
SELECT jsonb_pretty(coalesce(jsonb_agg(to_jsonb(t) ORDER BY seq), '[]'))
FROM batch_audit.audit_event AS t WHERE resource_type = 'batch' AND resource_id = {batch_id}
""")


def fill(
    connection: Connection, work: Work, batch: Batch, packing: Packing, anchor: Anchor, data: Path
) -> None:
    """Write the payload of a batch's bag.

    Args:
        connection: A connection.
        work: The run's work.
        batch: The batch.
        packing: How files are packed.
        anchor: What the end of the audit trail is.
        data: The bag's folder of data.

    Raises:
        ArchiveError: Staged files are gone.
    """
    _put_source(connection, work, batch, packing, data)
    for path in sorted(work.staged_digests(batch.batch_id).iterdir()):
        _put(packing, f"{DIGESTS}/{path.name}", path, data)
    if rejects.has_any(connection, batch.batch_id):
        # Written beside the bag's folder of data, and gone before the bag is whole.
        unpacked = data.parent / "rejects"
        write_parquet(connection, batch.batch_id, unpacked)
        _put(packing, REJECTS, unpacked, data)
        unpacked.unlink()
    if not work.staged_feed(batch.batch_id).is_dir():
        keep_feed(work, batch.batch_id)
    for path in sorted(work.staged_feed(batch.batch_id).iterdir()):
        _put(packing, f"{FEED}/{path.name}", path, data)
    put_extract(connection, batch, anchor, data)


def _put_source(
    connection: Connection, work: Work, batch: Batch, packing: Packing, data: Path
) -> None:
    origin = work.staged_source(batch.batch_id)
    places = {
        file.file_name: file.place_in_bag for file in files.of_batch(connection, batch.batch_id)
    }
    if not all((origin / name).is_file() for name in places):
        message = (
            f"{batch.name}: its staged files are gone, so it cannot be archived. "
            f"Import the partition again with --force."
        )
        raise ArchiveError(message)
    for path in sorted(origin.iterdir()):
        # What is no data file is the sender's word on them.
        name = places.get(path.name, f"{SOURCE}/{path.name}")
        if packing.keeps(name):
            _put(packing, name, path, data)


def _put(packing: Packing, name: str, origin: Path, data: Path) -> None:
    target = data / packing.stored(name)
    target.parent.mkdir(parents=True, exist_ok=True)
    packing.pack(name, origin, target)


def put_extract(connection: Connection, batch: Batch, anchor: Anchor, data: Path) -> None:
    """Write what the ledger says of a batch, and an anchor of the audit trail.

    Args:
        connection: A connection.
        batch: The batch.
        anchor: What the end of the audit trail is.
        data: The bag's folder of data.
    """
    ledger = data / EXTRACT
    ledger.mkdir(parents=True)
    batch_id = sql.Literal(batch.batch_id)
    queries = {
        name: _ROWS.format(order=sql.SQL(order), table=sql.Identifier(name), batch_id=batch_id)
        for name, order in _EXTRACT.items()
    }
    queries["crc32_audit"] = _CHECKSUMS.format(batch_id=batch_id)
    queries["audit_event"] = _EVENTS.format(batch_id=sql.Literal(str(batch.batch_id)))
    with connection.cursor(row_factory=scalar_row) as cursor:
        for name, query in queries.items():
            # As PostgreSQL writes it: no number goes through a float.
            text = cursor.execute(query).fetchone()
            (ledger / f"{name}.json").write_text(f"{text}\n", encoding="utf-8")
    (data / anchors.IN_BAG).write_text(f"{anchor.json}\n", encoding="utf-8")
    reasons = [asdict(reason) for reason in rejects.summary(connection, batch.batch_id)]
    text = json.dumps(reasons, indent=1)
    (ledger / "import_reject_summary.json").write_text(f"{text}\n", encoding="utf-8")
