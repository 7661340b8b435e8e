"""Where a feed's deliveries come from: files in landing, or a query against another database.

The one place that tells the two apart. Everybody else asks here, and gets staged files either way.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batch_pipelines.engine import intake
from batch_pipelines.engine.catalog import match_columns
from batch_pipelines.engine.errors import DeliveryError, FeedError
from batch_pipelines.engine.feeds import check_key, is_key
from batch_pipelines.engine.landing import deliveries, gathering
from batch_pipelines.engine.landing.deliveries import Delivery, Landed
from batch_pipelines.engine.places.place import anything, nobody
from batch_pipelines.engine.promises import read_promises
from batch_pipelines.engine.windowing.timetable import over, require_over

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from batch_pipelines.engine.catalog import TableInfo
    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.ledger.files import Checksum, ImportFile
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.work import Work

# SQLAlchemy takes a quarter of a second to import, which only a query needs: its modules are imported
# where they are used.


@dataclass(frozen=True)
class Taken:
    """A delivery in staging.

    Attributes:
        files: Its files.
        checksums: What was computed while they were written.
        fingerprint: Tells whether what is waiting is this delivery.
    """

    files: list[ImportFile]
    checksums: list[Checksum]
    fingerprint: str


def place(feed: Feed) -> str:
    """Say where a feed's deliveries come from, for people.

    Args:
        feed: The feed.
    """
    query, batches = feed.source.query, feed.source.batches
    if batches is not None:
        return f"files that {batches.table} lists"
    if query is None:
        return feed.source.path
    return f"{query.table or 'a query'} in the database of {query.url_variable}"


def is_always_there(feed: Feed) -> bool:
    """Say whether there is something to load for every partition key: a query that lists no keys.

    Args:
        feed: The feed.
    """
    return feed.source.query is not None and feed.source.query.keys is None


def find_keys(feed: Feed, root: Path) -> list[str]:
    """List the partition keys that have a delivery waiting.

    Args:
        feed: The feed.
        root: Folder where relative paths start.

    Returns:
        The valid keys, sorted; a name that is no valid key is passed over.

    Raises:
        DeliveryError: The database of a query cannot be asked.
        SettingsError: Its URL is not set, or cannot be used.
    """
    return [*look(feed, root, anything).deliveries]


def look(feed: Feed, root: Path, wanted: Callable[[str], bool]) -> Landed:
    """Look at the deliveries that are waiting.

    Args:
        feed: The feed.
        root: Folder where relative paths start.
        wanted: Which partition keys to look at.

    Returns:
        The deliveries; those of a query have no files yet.

    Raises:
        DeliveryError: Landing cannot be reached, or the database of a query refuses it.
        SettingsError: Its URL is not set, or cannot be used.
    """
    if feed.source.query is None:
        return deliveries.look(feed, root, wanted)
    from batch_pipelines.engine.querying.waiting import waiting  # noqa: PLC0415

    found = waiting(feed.source.query)
    # One snapshot of a database is whole: there is nothing to wait for.
    return Landed(
        {
            key: Delivery((), (), mark, 0)
            for key, mark in sorted(found.items())
            if is_key(key) and wanted(key)
        },
        tuple(sorted(key for key in found if not is_key(key))),
    )


def keys_to_import(feed: Feed, key: str | None, root: Path, *, now: dt.datetime) -> list[str]:
    """Say which partitions an import has to do with.

    Args:
        feed: The feed.
        key: The partition key asked for; None for all that have a delivery waiting.
        root: Folder where relative paths start.
        now: The time, with time zone.

    Returns:
        Their keys. Where partitions are windows of time, those that are over.

    Raises:
        DeliveryError: The key is not a valid one, or nothing is waiting.
        FeedError: The feed imports nothing.
        SettingsError: The URL of a query's database is not set, or cannot be used.
    """
    if feed.is_reconciled:
        message = (
            f"Feed {feed.feed} writes nothing (`write: none`): another system loads its tables. "
            f"Compare what it has loaded: batch-pipelines reconcile {feed.feed}"
            f"{'' if key is None else f' --batch {shlex.quote(key)}'}"
        )
        raise FeedError(message)
    by_path = feed.source.query is None
    if key is None:
        keys = find_keys(feed, root)
        if keys and feed.windows is not None and not over(feed.windows, keys, now=now):
            message = (
                f"Nothing of what lies in landing for feed {feed.feed} is of a window of time that is "
                f"over: {', '.join(keys[:12])}. Say which by --batch KEY to see what is wrong with it."
            )
            raise DeliveryError(message)
        keys = keys if feed.windows is None else over(feed.windows, keys, now=now)
        if not keys:
            message = (
                f"Nothing lies in landing for feed {feed.feed}: no file {feed.pattern('{batch}', root)}."
                if by_path
                else f"The query of feed {feed.feed} lists no partition; say which, by --batch KEY."
            )
            raise DeliveryError(message)
        return keys
    require_over(feed, check_key(key), now=now)
    if by_path and deliveries.find_delivery(feed, check_key(key), root) is None:
        near = ", ".join(find_keys(feed, root)[:12]) or "nothing"
        message = f"There is no file {feed.pattern(key, root)}. In landing for {feed.feed}: {near}."
        raise DeliveryError(message)
    return [check_key(key)]


def take_in(work: Work, batch_id: str, seen: Callable[[str], object] = nobody) -> Taken:
    """Take a partition's delivery into staging, immutable.

    Args:
        work: The run's work.
        batch_id: The batch whose staging it goes to.
        seen: Is told the fingerprint of the delivery before anything of it is read.

    Returns:
        What was taken.

    Raises:
        DeliveryError: It is missing, not what was promised, larger than the feed allows, or changes
            while it is read; or the database of a query refuses it.
        FeedError: The columns of a query do not have names of their own.
        SettingsError: The URL of a query's database is not set, or cannot be used.
    """
    if work.feed.source.query is not None:
        from batch_pipelines.engine.querying.taking import take_query  # noqa: PLC0415

        return Taken(*take_query(work, batch_id, work.feed.source.query, seen))
    delivery = _find(work)
    if delivery is None:
        pattern = work.feed.pattern(work.key, work.settings.root)
        message = f"{work.name}: there is no file {pattern}. Deliver it and run again."
        raise DeliveryError(message)
    seen(delivery.fingerprint)
    files, checksums = intake.take_in(work, batch_id, delivery, read_promises(delivery))
    return Taken(files, checksums, delivery.fingerprint)


def gathered_keys(
    connection: Connection,
    feed: Feed,
    key: str | None,
    root: Path,
    clock: Callable[[], float],
) -> list[str]:
    """Say which partitions an import has to do with, of a feed that gathers files.

    Args:
        connection: To the ledger, in autocommit mode.
        feed: The feed.
        key: The partition key asked for; None gathers all that lies in landing.
        root: Folder where relative paths start.
        clock: Seconds since 1970.

    Returns:
        Their keys.

    Raises:
        DeliveryError: Nothing lies in landing, or files of that partition are not there any more.
    """
    if key is not None:
        gathering.find(connection, feed, key, root)
        return [key]
    keys = [*gathering.gather(connection, feed, root, clock, at_once=True).deliveries]
    if not keys:
        message = f"Nothing lies in landing for feed {feed.feed}: no file {feed.pattern('', root)}."
        raise DeliveryError(message)
    return keys


def _find(work: Work) -> Delivery | None:
    if work.feed.source.gather is None:
        return deliveries.find_delivery(work.feed, work.key, work.settings.root)
    with work.database.connect("gathered") as connection:
        return gathering.find(connection, work.feed, work.key, work.settings.root)


def check_source(feed: Feed, tables: Sequence[TableInfo]) -> None:
    """Check what a query's database says of it; files are checked when they are there.

    Args:
        feed: The feed.
        tables: Its tables.

    Raises:
        DeliveryError: The database refuses the query.
        FeedError: The query's columns do not fit the table.
        SettingsError: The variable with the URL is not set, or the URL cannot be used.
        UnreachableError: The database does not answer, so that nothing could be checked.
    """
    query = feed.source.query
    if query is None:
        return
    from batch_pipelines.engine.querying.checking import check_query  # noqa: PLC0415

    form = feed.form_of(tables[0].full_name)
    names = [form.target_name(name) for name in check_query(query)]
    where = f"The query in the database of {query.url_variable}"
    match_columns(tables[0], [name for name in names if name is not None], where)
