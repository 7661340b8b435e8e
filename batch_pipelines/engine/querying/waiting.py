"""Which partitions a query's database has rows for, by its `keys` SELECT, and whether they are new."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from batch_pipelines.engine.errors import DeliveryError
from batch_pipelines.engine.querying.connecting import open_snapshot
from batch_pipelines.engine.querying.statements import statements_of_keys

if TYPE_CHECKING:
    from batch_pipelines.engine.queries import Query
    from batch_pipelines.engine.querying.connecting import Snapshot


def waiting(query: Query) -> dict[str, str]:
    """List the partitions that there are.

    Args:
        query: The query.

    Returns:
        A fingerprint of each, valid or not; a null is an empty key. Nothing where the query
        has no `keys`.

    Raises:
        DeliveryError: The database refuses the SELECT, or a key stands twice.
        SettingsError: The variable with the URL is not set, or the URL cannot be used.
        UnreachableError: The database does not answer.
    """
    if query.keys is None:
        return {}
    with open_snapshot(query) as snapshot:
        return marks_of(snapshot, query.keys)


def fingerprint(snapshot: Snapshot, query: Query, key: str) -> str:
    """Give a partition's fingerprint, as `waiting` would in this snapshot.

    Args:
        snapshot: Where its rows are read.
        query: The query.
        key: Partition key.

    Returns:
        SHA-256, hex.
    """
    marks = {} if query.keys is None else marks_of(snapshot, query.keys)
    return marks.get(key) or _mark([key])


def marks_of(snapshot: Snapshot, select: str) -> dict[str, str]:
    """Read the partition keys.

    Args:
        snapshot: Where.
        select: The `keys` of a query.

    Returns:
        A fingerprint of each, valid or not; a null is an empty key.

    Raises:
        DeliveryError: The database refuses the SELECT, or a key stands twice.
    """
    marks: dict[str, str] = {}
    with statements_of_keys(snapshot, select).all() as found, snapshot.told("`keys`"):
        for row in found:
            key = "" if row[0] is None else str(row[0])
            if key in marks:
                message = (
                    f"In the database of {snapshot.name}, `keys` lists a partition key twice. "
                    "Write it so that each stands once, as GROUP BY does."
                )
                raise DeliveryError(message)
            marks[key] = _mark([key, *row[1:]])
    return marks


def _mark(values: list[object]) -> str:
    return hashlib.sha256(json.dumps(values, default=str).encode()).hexdigest()
