"""Row digests: the same three numbers from Arrow columns here and from the table in the server.

A row's digest is the CRC32C of `record_send(ROW(its columns))`, PostgreSQL's wire format of a row.
What lives here: computing it (`row_crc32c`), adding it up (`RowDigest`), and asking the server for
it (`sql.table_digest`, not imported here, as the rest needs no driver). What does not: which rows
and columns belong to a batch, and what a difference means.

Read `rows` for the idea, then `crc` for the arithmetic, then one column type.
"""

from __future__ import annotations

from batch_pipelines.engine.digests.row_digest import RowDigest
from batch_pipelines.engine.digests.rows import row_crc32c

__all__ = ["RowDigest", "row_crc32c"]
