"""What must not be lost: rows and lines of the ledger, in their tables or in a bag that proves them."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import TYPE_CHECKING

from batch_pipelines.engine.archiving.bag import SOURCE, opened
from batch_pipelines.engine.archiving.choosing import place_of
from batch_pipelines.engine.archiving.rows.reading import open_rows_at
from batch_pipelines.engine.errors import ArchiveError
from batch_pipelines.engine.ledger import archives
from batch_pipelines.engine.retention.sql import RECORDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batch_pipelines.engine.ledger.archives import ArchiveRecord
    from tests.support_engine import Site

_ROWS = "SELECT id FROM {} WHERE import_batch_id = %s"
_LINES = "SELECT to_jsonb(t)::text FROM batch_audit.{} AS t WHERE batch_id = %s"


def kept(site: Site) -> frozenset[str]:
    """Name every row, line and delivered file of all batches that is in a table, or in a whole bag."""
    return frozenset(name for batch in site.history() for name in _of(site, batch.batch_id))


def _of(site: Site, batch_id: str) -> Iterator[str]:
    for table in site.feed.tables:
        for (number,) in site.sql(_ROWS.format(table.table), batch_id):
            yield f"{table.table} {batch_id} {number}"
    for names in RECORDS.values():
        for name in names:
            for (line,) in site.sql(_LINES.format(name), batch_id):
                yield _line(name, line.encode())
    for record in archives.of_batch(site.connection, batch_id):
        # What is damaged or gone keeps nothing, and that is all there is to say of it here.
        with suppress(ArchiveError):
            yield from [*_in_bag(site, record)]


def _in_bag(site: Site, record: ArchiveRecord) -> Iterator[str]:
    archive, name = place_of(site.settings, record.place)
    seal = record.tagmanifest_sha256
    if record.kind == "rows":
        with open_rows_at(site.settings, archive, name, seal) as rows:
            for table in rows.account.tables:
                for part in rows.batches(table):
                    for number in part.column("id").to_pylist():
                        yield f"{table.full_name} {record.batch_id} {number}"
        return
    with opened(site.settings, archive, name, seal) as bag:
        for file in bag.under(SOURCE):
            bag.read(file, lambda _: None)
            yield f"{record.batch_id} {file}"
        for file in bag.under("records"):
            pieces: list[bytes] = []
            bag.read(file, pieces.append)
            table_name = file.removeprefix("records/").removesuffix(".jsonl")
            for line in b"".join(pieces).splitlines():
                yield _line(table_name, line)


def _line(table: str, line: bytes) -> str:
    return f"{table} {hashlib.sha256(line).hexdigest()}"
