"""Small files gathered into batches. The ledger keeps which: a rerun takes exactly the same files.

How files are put together is a pure function. A file is known by its name: with other content it is a
correction of the batch that it is in.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from batch_pipelines.engine.errors import DeliveryError
from batch_pipelines.engine.feeds import check_key
from batch_pipelines.engine.intake import copy_staged, kind_of
from batch_pipelines.engine.landing.deliveries import Landed, delivery_of, is_data, list_files
from batch_pipelines.engine.ledger import gathered as ledger
from batch_pipelines.engine.ledger.files import ImportFile
from batch_pipelines.engine.reading.count import records_of
from batch_pipelines.engine.reading.plain import Unpacking

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from batch_pipelines.engine.feed_parts.source import Gather
    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.landing.deliveries import Delivery
    from batch_pipelines.engine.places.place import LandedFile
    from batch_pipelines.engine.postgres.database import Connection

GATHERED: Final = 20_000
"""Most files that are gathered at a time: a second of the sensor's tick."""
COUNTED: Final = 500
"""The same where their records are counted, for which each of them is read."""
_STEM = 60  # characters of a file's name in a key
_DIGITS = 12  # of a hash that is in it
_NAMED = 5
_NO_KEY = re.compile(r"[^A-Za-z0-9_=-]+")


def group(
    files: Sequence[LandedFile],
    rule: Gather,
    *,
    now: float,
    records: Mapping[str, int] | None = None,
    at_once: bool = False,
) -> list[tuple[LandedFile, ...]]:
    """Put files together.

    Args:
        files: Files that are in no batch, the oldest first.
        rule: How much makes a batch.
        now: Seconds since 1970.
        records: How many records each file has, by name, where the rule asks.
        at_once: Whether the last files are a batch even if more could come.

    Returns:
        The batches, the oldest first; none of them empty, and no file in two.
    """
    groups: list[tuple[LandedFile, ...]] = []
    current: list[LandedFile] = []
    size = count = 0
    counts = records or {}
    for file in files:
        own = counts.get(file.name, 0)
        if current and (_above(size + file.size, rule.bytes) or _above(count + own, rule.records)):
            groups.append(tuple(current))
            current, size, count = [], 0, 0
        current.append(file)
        size, count = size + file.size, count + own
        if len(current) == rule.files or size == rule.bytes or count == rule.records:
            groups.append(tuple(current))
            current, size, count = [], 0, 0
    if current and (at_once or now - current[0].changed >= rule.seconds):
        groups.append(tuple(current))
    return groups


def key_of(files: Iterable[LandedFile]) -> str:
    """Make the partition key of gathered files, the same for the same names.

    Args:
        files: The files, the oldest first.

    Returns:
        The first file's name, how many more there are, and a hash of all their names.
    """
    names = [file.name for file in files]
    stem = _NO_KEY.sub("-", names[0].split(".")[0])[:_STEM].strip("-_=") or "files"
    joined = "\0".join(sorted(names)).encode(errors="surrogateescape")
    return f"{stem}+{len(names) - 1}.{hashlib.sha256(joined).hexdigest()[:_DIGITS]}"


def gather(
    connection: Connection,
    feed: Feed,
    root: Path,
    clock: Callable[[], float],
    *,
    at_once: bool = False,
) -> Landed:
    """Gather what waits, and list all batches of which files lie in landing.

    Args:
        connection: To the ledger, in autocommit mode.
        feed: A feed that gathers.
        root: Folder where relative paths start.
        clock: Seconds since 1970.
        at_once: Gather also what has not waited for long, or has not settled.

    Returns:
        The deliveries, of those files that are there.

    Raises:
        DeliveryError: Landing cannot be reached.
    """
    problems: dict[str, None] = {}
    files = list_files(feed, root, problems.setdefault)
    data = {name: file for name, file in files.items() if is_data(name)}
    keys = ledger.keys_of(connection, feed.feed, data) if data else {}
    if keys.keys() != data.keys():
        with connection.transaction():
            ledger.lock(connection, feed.feed)
            keys = ledger.keys_of(connection, feed.feed, data)
            fresh = [file for name, file in data.items() if name not in keys]
            now = clock()
            added = _gathered(feed, fresh, now, at_once=at_once)
            ledger.add(connection, feed.feed, added)
        keys |= added
    by_key: dict[str, list[LandedFile]] = defaultdict(list)
    for name, key in keys.items():
        by_key[key].append(data[name])
    return Landed(
        {key: delivery_of(by_key[key], files) for key in sorted(by_key)}, problems=tuple(problems)
    )


def find(connection: Connection, feed: Feed, key: str, root: Path) -> Delivery:
    """Find the files of a gathered batch, all of them.

    Args:
        connection: To the ledger.
        feed: A feed that gathers.
        key: Partition key.
        root: Folder where relative paths start.

    Returns:
        The delivery.

    Raises:
        DeliveryError: There is no such batch, or files of it are not in landing.
    """
    names = ledger.members(connection, feed.feed, [check_key(key)])
    files = list_files(feed, root)
    if not names:
        message = (
            f"{feed.feed}/{key}: no files have been gathered under this key, or they have been gathered "
            f"anew because some had left landing. batch-pipelines import {feed.feed}"
        )
        raise DeliveryError(message)
    if missing := sorted(names - files.keys()):
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        message = (
            f"{feed.feed}/{key}: of {len(names)} gathered files {', '.join(missing[:_NAMED])}{more} "
            "are not in landing any more. Deliver them again, and run again. A file that is no "
            "correction needs a name of its own."
        )
        raise DeliveryError(message)
    return delivery_of((files[name] for name in names), files)


def incomplete(connection: Connection, feed: Feed, landed: Mapping[str, Delivery]) -> set[str]:
    """Say which of some batches have files that have left landing."""
    there = {file.name for delivery in landed.values() for file in delivery.data}
    gone = ledger.members(connection, feed.feed, landed.keys()) - there
    return set(ledger.keys_of(connection, feed.feed, gone).values()) if gone else set()


def _gathered(
    feed: Feed, fresh: Iterable[LandedFile], now: float, *, at_once: bool
) -> dict[str, str]:
    """Give the partition of each file that is gathered now, by name."""
    rule = feed.source.gather
    if rule is None:
        return {}
    settled = now - (float("-inf") if at_once else feed.source.settle_seconds)
    ready = sorted(
        (file for file in fresh if file.changed <= settled), key=lambda f: (f.changed, f.name)
    )
    if not at_once:
        ready = ready[: GATHERED if rule.records is None else COUNTED]
    records = None if rule.records is None else _records(feed, ready)
    groups = group(ready, rule, now=now, records=records, at_once=at_once)
    return {file.name: key_of(files) for files in groups for file in files}


def _records(feed: Feed, files: Sequence[LandedFile]) -> dict[str, int]:
    """Count records; a file of which they cannot be told counts as none, and its batch says why."""
    counted: dict[str, int] = {}
    for file in files:
        with tempfile.TemporaryDirectory() as folder:
            try:
                copy = copy_staged(file, Path(folder) / file.name)
                file_format, compression = kind_of(file, Path(folder) / file.name)
                target = feed.target_of(file.name)
                staged = ImportFile(
                    file.name, target, copy.size, file_format, compression, copy.crc32c,
                    copy.digests["sha256"], None, None,
                )  # fmt: skip
                plain = Unpacking(Path(folder), feed).readable(staged)
                counted[file.name] = records_of(plain, file_format, feed.form_of(target))
            except DeliveryError:
                counted[file.name] = 0
    return counted


def _above(value: int, limit: int | None) -> bool:
    return limit is not None and value > limit
