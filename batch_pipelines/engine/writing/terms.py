"""What the columns of a delivery are held against: before it is loaded, replayed, or validated.

What was left out of a batch when it was loaded stays out of it, whatever its feed or its tables have
become since: else the rows that it has already would not be those that its source says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from batch_pipelines.engine.contract import Contract
from batch_pipelines.engine.ledger import proofs, signatures
from batch_pipelines.engine.signatures import Terms

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batch_pipelines.engine.catalog import TableInfo
    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.postgres.database import Connection

_AS_LOADED = Contract()


def before_load(connection: Connection, feed: Feed) -> dict[str, Terms]:
    """Say what a new delivery is held against.

    Args:
        connection: A connection.
        feed: The feed.

    Returns:
        For each table its contract and the version in force.
    """
    versions = signatures.in_force(connection, feed.feed)
    return {
        table.table: Terms(
            feed.contract_of(table.table), versions.get(table.table),
            server_changed=frozenset(table.server_changed),
        )
        for table in feed.tables
    }  # fmt: skip


def before_replay(
    connection: Connection, feed: Feed, batch: Batch, tables: Mapping[str, TableInfo]
) -> dict[str, Terms]:
    """Say what records are held against that were set aside when their batch was loaded.

    Args:
        connection: A connection.
        feed: The feed.
        batch: The batch.
        tables: The feed's tables by name.

    Returns:
        For each table today's contract, against the version that the batch was loaded as.
    """
    found = {}
    events = {event.target_table: event for event in signatures.events(connection, batch.batch_id)}
    late, changed = _late(connection, batch, tables), _server_changed(connection, batch)
    for name in tables:
        event, version, left = events.get(name), None, frozenset[str]()
        if event is not None:
            left = frozenset(c.column for c in event.changes if c.policy == "ignore")
            version = signatures.numbered(connection, feed.feed, name, event.version)
        found[name] = Terms(
            feed.contract_of(name), version, left,
            late.get(name, frozenset()), changed.get(name, frozenset()),
        )  # fmt: skip
    return found


def before_validation(
    connection: Connection, batch: Batch, tables: Mapping[str, TableInfo]
) -> dict[str, Terms]:
    """Say which columns of a batch were loaded; no contract is asked any more.

    Args:
        connection: A connection.
        batch: The batch.
        tables: The feed's tables by name.

    Returns:
        For each table what was left out of it.
    """
    late, changed = _late(connection, batch, tables), _server_changed(connection, batch)
    events = signatures.events(connection, batch.batch_id)
    left = {event.target_table: frozenset(event.not_loaded) for event in events}
    return {
        name: Terms(
            _AS_LOADED, left=left.get(name, frozenset()), late=late.get(name, frozenset()),
            server_changed=changed.get(name, frozenset()),
        )
        for name in tables
    }  # fmt: skip


def _late(
    connection: Connection, batch: Batch, tables: Mapping[str, TableInfo]
) -> dict[str, frozenset[str]]:
    """Find the columns that a table has and the batch was not loaded with."""
    found = {}
    for balance in proofs.tables(connection, batch.batch_id):
        table = tables.get(balance.target_table)
        if table is not None:
            names = frozenset(column.name for column in table.columns)
            known = {*balance.columns, *balance.normalised, *balance.server_changed}
            found[table.full_name] = names - known
    return found


def _server_changed(connection: Connection, batch: Batch) -> dict[str, frozenset[str]]:
    """Find the columns that counted as changed by the server when the batch was loaded."""
    return {
        balance.target_table: frozenset(balance.server_changed)
        for balance in proofs.tables(connection, batch.batch_id)
    }
