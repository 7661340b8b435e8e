"""Putting together what a batch is to publish: its sources by table, and what it replaces."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from batch_pipelines.engine.catalog import is_stamped, read_tables
from batch_pipelines.engine.errors import DeliveryError
from batch_pipelines.engine.feed_files import place_of
from batch_pipelines.engine.feed_parts.table import Table
from batch_pipelines.engine.ledger import batches, files, proofs, rejects
from batch_pipelines.engine.restaging import restage
from batch_pipelines.engine.writing import terms as agreed
from batch_pipelines.engine.writing.publication import Publication
from batch_pipelines.engine.writing.ruling import read_rules
from batch_pipelines.engine.writing.source import sources_of, with_rules

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batch_pipelines.engine.catalog import TableInfo
    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.signatures import Terms
    from batch_pipelines.engine.work import Work
    from batch_pipelines.engine.writing.source import TableSource


def publication_of(
    connection: Connection, work: Work, batch: Batch, purpose: Literal["load", "replay"]
) -> Publication:
    """Put together what a batch is to publish, as feed, tables and ledger are now.

    Args:
        connection: A connection in autocommit mode.
        work: The run's work.
        batch: The batch; its files are staged.
        purpose: Whether to load it, or what was set aside of it.

    Returns:
        What to publish, at once.

    Raises:
        DeliveryError: A staged copy is gone, or a header cannot be read.
        ArchiveError: The files to replay from are gone.
        ContractError: The delivery's columns are others than the feed's contract or its tables allow.
        FeedError: The feed's tables or the files' columns do not fit.
    """
    old: str | None = None
    retired: tuple[TableInfo, ...] = ()
    if purpose == "replay":
        restage(connection, work, batch)
        sources = _replayed(connection, work, batch)
    else:
        superseded = batches.in_force(connection, work.feed.feed, work.key)
        old = None if superseded is None else superseded.batch_id
        sources = _sources(connection, work, batch, agreed.before_load(connection, work.feed))
        retired = _retired(connection, work, old)
    digests = work.staged_digests(batch.batch_id)
    return Publication(work, batch, sources, old, retired, digests, purpose)


def _replayed(connection: Connection, work: Work, batch: Batch) -> tuple[TableSource, ...]:
    sources = []
    tables = {table.full_name: table for table in read_tables(connection, work.feed)}
    terms = agreed.before_replay(connection, work.feed, batch, tables)
    for source in _sources(connection, work, batch, terms):
        only = {}
        for file in source.files:
            waiting = rejects.left_out(
                connection, batch.batch_id, file.file_name, source.table.full_name, skipped=False
            )
            source.require_places(file, waiting)
            only[file.file_name] = waiting.records
        if any(len(numbers) for numbers in only.values()):
            sources.append(replace(source, only=only))
    return tuple(sources)


def _retired(connection: Connection, work: Work, old: str | None) -> tuple[TableInfo, ...]:
    """Read the tables that hold rows of the superseded batch and are no longer the feed's.

    One that has been dropped since has none left. Parents stand before their children.
    """
    if old is None:
        return ()
    kept = {table.table for table in work.feed.tables}
    gone = [
        Table(table=balance.target_table, files=balance.target_table)
        for balance in proofs.tables(connection, old)
        if balance.target_table not in kept
        and balance.inserted + balance.updated + balance.unchanged
        and is_stamped(connection, balance.target_table)
    ]
    return read_tables(connection, work.feed.model_copy(update={"tables": tuple(gone)}))


def _sources(
    connection: Connection, work: Work, batch: Batch, terms: Mapping[str, Terms]
) -> tuple[TableSource, ...]:
    folder = work.staged_source(batch.batch_id)
    staged = files.of_batch(connection, batch.batch_id)
    for file in staged:
        if not (folder / file.file_name).exists():
            message = f"{file.file_name}: its staged copy is gone. Run the whole partition again."
            raise DeliveryError(message)
    tables = read_tables(connection, work.feed)
    place = functools.partial(place_of, work.settings.feeds, work.feed.feed)
    rules = read_rules(connection, work.feed, tables, place)
    return with_rules(sources_of(tables, staged, folder, work.feed, terms), rules)
