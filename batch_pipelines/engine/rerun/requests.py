"""Partitions that somebody wants to be run again, whatever their cause and pause."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batch_pipelines.engine.ledger.events import Event, append

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.rerun.failed import Failed

_ASK = """
INSERT INTO batch_audit.rerun_request (feed, partition_key, occasion, requested_by)
VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING
"""
_ASKED = "SELECT feed, partition_key, occasion, requested_by FROM batch_audit.rerun_request"


def ask(connection: Connection, failed: Iterable[Failed], by: str) -> None:
    """Ask for partitions to be run again; once for each failure.

    Args:
        connection: A connection.
        failed: The partitions as they stand; what is tried again meanwhile is no longer meant.
        by: Who asks.
    """
    for each in failed:
        with connection.transaction():
            wanted = (each.feed, each.partition_key, each.occasion, by)
            if connection.execute(_ASK, wanted).rowcount:
                name = f"{each.feed}/{each.partition_key}"
                said = {"occasion": each.occasion}
                told = Event(by, "rerun.requested", "SUCCESS", "partition", name, details=said)
                append(connection, told)


def asked_by(connection: Connection) -> dict[tuple[str, str, str], str]:
    """Map each failure (feed, partition key, occasion) that somebody asked about to him.

    Args:
        connection: A connection.
    """
    return {(f, k, o): by for f, k, o, by in connection.execute(_ASKED)}
