"""Checking a query without reading a row: the database plans each statement that an import executes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batch_pipelines.engine.errors import FeedError
from batch_pipelines.engine.feeds import is_key
from batch_pipelines.engine.querying.connecting import open_snapshot
from batch_pipelines.engine.querying.statements import statements_of
from batch_pipelines.engine.querying.waiting import marks_of

if TYPE_CHECKING:
    from batch_pipelines.engine.queries import Query


def check_query(query: Query) -> tuple[str, ...]:
    """Check a query.

    Args:
        query: The query.

    Returns:
        The names of its columns.

    Raises:
        DeliveryError: The database refuses a statement.
        FeedError: A column has no name of its own, a key column is not there, or `keys` lists what is no
            partition key.
        SettingsError: The variable with the URL is not set, or the URL cannot be used.
        UnreachableError: The database does not answer.
    """
    with open_snapshot(query) as snapshot:
        # A null stands for the partition key: it fits every type that the SELECT takes it for.
        statements = statements_of(snapshot, query, None)
        statements.range_of(tuple(None for _ in query.key), 0).close()
        if query.keys is not None:
            wrong = sum(not is_key(key) for key in marks_of(snapshot, query.keys))
            if wrong:
                message = (
                    f"In the database of {query.url_variable}, `keys` lists {wrong} that are no "
                    "partition keys, which are 1 to 100 letters, digits, or _ . = + -. They are passed "
                    "over; write them otherwise, as in to_char(day, 'YYYY-MM')."
                )
                raise FeedError(message)
    return statements.names
