"""Rehearsal: the whole load of a delivery with all constraints, and then none of it.

The delivery is read where it lies. PostgreSQL does all that it would do for a real batch, the proofs
included, in a transaction that is rolled back; the ledger hears nothing of it. What a sequence has given
out stays given out.
"""

from __future__ import annotations

import functools
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from batch_pipelines.engine.bad_files import require_enough
from batch_pipelines.engine.catalog import read_tables
from batch_pipelines.engine.errors import ThresholdError
from batch_pipelines.engine.feed_files import place_of
from batch_pipelines.engine.fidelity import fidelity_of_source
from batch_pipelines.engine.ledger import batches
from batch_pipelines.engine.ledger.events import Event, append
from batch_pipelines.engine.postgres.actor import UNAUTHENTICATED
from batch_pipelines.engine.reading.count import records_by_table, records_of
from batch_pipelines.engine.reading.plain import Unpacking
from batch_pipelines.engine.sources import take_in
from batch_pipelines.engine.writing.loading import load
from batch_pipelines.engine.writing.publication import Publication
from batch_pipelines.engine.writing.ruling import read_rules
from batch_pipelines.engine.writing.source import sources_of, with_rules
from batch_pipelines.engine.writing.terms import before_load

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batch_pipelines.engine.fidelity import ColumnFidelity
    from batch_pipelines.engine.ledger.proofs import TableBalance
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.rejects import Reason
    from batch_pipelines.engine.signatures import Comparison
    from batch_pipelines.engine.work import Work


@dataclass(frozen=True)
class Rehearsal:
    """What importing a delivery would do.

    Attributes:
        balances: The balance of each table; empty where nothing would be published.
        reasons: How many records would be set aside, by their first reason.
        supersedes: Id of the batch that would be replaced, or None.
        problem: Why nothing would be published, or None.
        comparisons: What the delivery brings to each table, against the version in force.
        set_aside: What is wrong with each file that the batch would go on without.
        fidelity: How true the columns of each table would keep what is sent, by its name.
    """

    balances: tuple[TableBalance, ...]
    reasons: Mapping[Reason, int]
    supersedes: str | None
    problem: str | None
    comparisons: tuple[Comparison, ...]
    set_aside: tuple[str, ...]
    fidelity: Mapping[str, tuple[ColumnFidelity, ...]]


def rehearse(connection: Connection, work: Work) -> Rehearsal:
    """Load a delivery and take it all back.

    Args:
        connection: A connection in autocommit mode.
        work: The work of a run that will have no batch.

    Returns:
        What would have happened.

    Raises:
        DeliveryError: The delivery is missing, damaged, or cannot be read on.
        ContractError: The delivery's columns are others than the feed's contract or its tables allow.
        FeedError: The feed's tables or the files' columns do not fit.
        PublishError: The books do not balance, or rows elsewhere would change.
    """
    try:
        found = _rehearse(connection, work)
        principal = work.database.actor.principal_id or UNAUTHENTICATED
        append(connection, Event(principal, "rehearsal.done", "SUCCESS", "partition", work.name))
        return found
    finally:
        shutil.rmtree(work.staging(work.run_id), ignore_errors=True)


def _rehearse(connection: Connection, work: Work) -> Rehearsal:
    publication, set_aside = _publication(connection, work)
    old = publication.superseded
    compared = tuple(s.comparison for s in publication.sources if s.comparison is not None)
    version = connection.info.server_version
    fidelity = {s.table.full_name: fidelity_of_source(s, version) for s in publication.sources}
    try:
        loaded = load(connection, publication)
    except ThresholdError as error:
        return Rehearsal((), error.reasons, old, str(error), compared, set_aside, fidelity)
    return Rehearsal(loaded.balances, loaded.reasons, old, None, compared, set_aside, fidelity)


def _publication(connection: Connection, work: Work) -> tuple[Publication, tuple[str, ...]]:
    """Give what would be published, and what is wrong with each file that would be set aside."""
    taken = take_in(work, work.run_id)
    require_enough(connection, work, taken.files)
    staged = [file for file in taken.files if file.problem is None]
    set_aside = tuple(file.problem for file in taken.files if file.problem is not None)
    folder = work.staged_source(work.run_id)
    unpacking = Unpacking(folder, work.feed)
    counted = []
    for file in staged if work.feed.tables else ():
        plain, routes = unpacking.readable(file), work.feed.routes
        records = records_of(plain, file.format, work.feed.form_of(file.target_table))
        by_table = records_by_table(plain, routes) if routes else None
        counted.append(replace(file, records=records, table_records=by_table))
    work.feed.limits.check(work.name, records=sum(f.records or 0 for f in counted))
    terms = before_load(connection, work.feed)
    tables = read_tables(connection, work.feed)
    place = functools.partial(place_of, work.settings.feeds, work.feed.feed)
    rules = read_rules(connection, work.feed, tables, place)
    sources = with_rules(sources_of(tables, counted, folder, work.feed, terms), rules)
    superseded = batches.in_force(connection, work.feed.feed, work.key)
    work.staged_digests(work.run_id).mkdir()
    publication = Publication(
        work,
        batches.imagined(work.feed, work.key, work.run_id),
        sources,
        None if superseded is None else superseded.batch_id,
        (),
        work.staged_digests(work.run_id),
        "rehearsal",
    )
    return publication, set_aside
