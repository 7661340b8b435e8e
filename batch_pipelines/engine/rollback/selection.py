"""Which batches somebody means."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from batch_pipelines.engine.errors import FeedError
from batch_pipelines.engine.ledger import batches, rollbacks

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batch_pipelines.engine.postgres.database import Connection

# What a correction superseded is in force again once that is rolled back, and was published since, too.
_STATES = (*sorted(batches.IN_FORCE), "SUPERSEDED")


def select(connection: Connection, references: Iterable[str], since: str | None) -> tuple[str, ...]:
    """Find the batches that somebody wants taken back.

    Args:
        connection: A connection.
        references: Batch ids, unique prefixes of them, or FEED/KEY.
        since: Also all published at or after this time, in ISO 8601; without a zone it is local. None
            for none.

    Returns:
        Their ids, each once.

    Raises:
        FeedError: A reference matches no batch or several, the time is none, or nothing was named.
    """
    found = [batches.find(connection, reference).batch_id for reference in references]
    if since is not None:
        found += rollbacks.since(connection, _moment(since), _STATES)
    if not found and since is not None:
        message = f"No batch that is in force was published since {since}; there is nothing to do."
        raise FeedError(message)
    if not found:
        message = (
            "There is no batch to roll back: name one, as an id, a unique prefix of one or FEED/KEY. "
            "`batch-pipelines batches` lists them."
        )
        raise FeedError(message)
    return tuple(dict.fromkeys(found))


def _moment(text: str) -> dt.datetime:
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        message = f"{text!r} is no time. Write it as in 2026-03-01T00:00+00:00."
        raise FeedError(message) from None
    return moment if moment.tzinfo is not None else moment.astimezone()
