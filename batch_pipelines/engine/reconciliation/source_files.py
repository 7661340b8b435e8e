"""The files that a batch of another system is from, copied so that they stay as they are."""

from __future__ import annotations

import glob
from typing import TYPE_CHECKING

from psycopg import sql

from batch_pipelines.engine.errors import DeliveryError
from batch_pipelines.engine.feeds import EVERY_TABLE
from batch_pipelines.engine.intake import copy_staged, kind_of
from batch_pipelines.engine.landing.deliveries import find_delivery
from batch_pipelines.engine.ledger.files import ImportFile
from batch_pipelines.engine.places.folder import Folder
from batch_pipelines.engine.promises import promised_crc32c, read_promises

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from batch_pipelines.engine.feed_parts.table import Table
    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.loaded import Batches
    from batch_pipelines.engine.places.place import LandedFile
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.promises import Promise

_PATHS = sql.SQL("SELECT {path}::text FROM {table} WHERE {batch} IN ({ids}) ORDER BY 1")


def copy_source(
    connection: Connection,
    feed: Feed,
    table: Table,
    batches: Sequence[str],
    root: Path,
    folder: Path,
) -> list[ImportFile]:
    """Copy the files that batches are from in a table.

    Args:
        connection: A connection to the target database.
        feed: The feed.
        table: The table; files that fill another one are left out.
        batches: The batches' ids.
        root: Folder where relative paths start.
        folder: Where the copies go; it is empty.

    Returns:
        The copies; two files of the same name get different ones.

    Raises:
        DeliveryError: A batch has no file for the table, or one that is not what its sender promised,
            changes while it is read, is wanted by no table, or in no known format.
    """
    copied, taken = list[ImportFile](), set[str]()
    for file, promise in _files(connection, feed, batches, root):
        target = feed.target_of(file.name)
        if target not in {table.table, EVERY_TABLE}:
            continue
        copy = folder / _free_name(file.name, taken)
        found = copy_staged(file, copy, promise.algorithms if promise else ())
        file_format, compression = kind_of(file, copy)
        if target == EVERY_TABLE and file_format != "jsonl":
            message = f"{file}: the feed has a `table_field`, which only JSON lines have."
            raise DeliveryError(message)
        promised = promised_crc32c(file, promise, found.stored)
        size, crc = found.size, found.crc32c
        told = promise.digests.values() if promise else ()
        if (
            (promise is not None and promise.size not in {None, size})
            or (promised is not None and promised.crc32c != crc)
            or any(found.digests[name] != own for each in told for name, own in each.items())
        ):
            message = (
                f"{file}: {size} bytes with CRC32C {crc:08x} are not what its sender says. "
                "Bring back the file that was loaded."
            )
            raise DeliveryError(message)
        sha256 = found.digests["sha256"]
        copied.append(
            ImportFile(copy.name, target, size, file_format, compression, crc, sha256, None, None)
        )
    if not copied:
        message = (
            f"None of the files is for {table.table} ({table.files}). Bring back what was loaded."
        )
        raise DeliveryError(message)
    return copied


def _files(
    connection: Connection, feed: Feed, batches: Sequence[str], root: Path
) -> Iterator[tuple[LandedFile, Promise | None]]:
    for batch in batches:
        if feed.source.batches is not None:
            for listed in _listed(connection, feed.source.batches, batch, root):
                yield listed, None
            continue
        delivery = find_delivery(feed, batch, root)
        if delivery is None:
            message = (
                f"Batch {batch}: there is no file {feed.pattern(batch, root)}. Bring back what was "
                "loaded, or correct `source.path`."
            )
            raise DeliveryError(message)
        promises = read_promises(delivery)
        for file in delivery.data:
            yield file, promises.get(file.name)


def _listed(connection: Connection, where: Batches, batch: str, root: Path) -> list[LandedFile]:
    query = _PATHS.format(
        path=sql.Identifier(where.path),
        table=sql.Identifier(*where.table.split(".")),
        batch=sql.Identifier(where.batch),
        ids=sql.Literal(batch),
    )
    listed = [str(path) for (path,) in connection.execute(query).fetchall() if path]
    if not listed:
        message = f"Batch {batch}: {where.table} lists no file of it to compare with."
        raise DeliveryError(message)
    found: dict[str, LandedFile] = {}
    for text in listed:
        path = root / text
        place = Folder(path.parent)
        # A file whose name has a wildcard in it stands for itself.
        exact = [*place.files("", [glob.escape(path.name)])]
        files = exact or sorted(place.files("", [path.name]), key=str)
        if not files:
            message = f"Batch {batch}: there is no file {path}, which {where.table} lists of it."
            raise DeliveryError(message)
        found |= {str(file): file for file in files}
    return [*found.values()]


def _free_name(name: str, taken: set[str]) -> str:
    """Give a file a name of its own; writers of parts call them all alike, in folders of their own."""
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{number}-{name}"
    taken.add(free)
    return free
