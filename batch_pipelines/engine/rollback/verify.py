"""After a rollback, from outside: are the tables what they would be without the batch?"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg import sql

from batch_pipelines.engine.catalog import STAMP, is_stamped
from batch_pipelines.engine.errors import RollbackError
from batch_pipelines.engine.ledger import batches, rollbacks
from batch_pipelines.engine.ledger.proofs import Check

if TYPE_CHECKING:
    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.postgres.database import Connection

_STAMPED = sql.SQL("SELECT count(*) FROM {table} WHERE {stamp} = {batch}")
_IMAGES = sql.SQL("""
SELECT count(*) FROM batch_audit.row_before_image
WHERE target_table = {name} AND (batch_id = {batch} OR previous_batch_id = {batch})
""")
_DIFFERING = sql.SQL("""
SELECT differing FROM batch_audit.batch_rollback WHERE batch_id = {batch} AND target_table = {name}
""")


@dataclass(frozen=True)
class Verified:
    """What verification found.

    Attributes:
        batch: The batch, rolled back.
        checks: Every check with its SQL.
    """

    batch: Batch
    checks: tuple[Check, ...]

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that did not hold."""
        return tuple(check for check in self.checks if check.status != "SUCCESS")


def verify(connection: Connection, batch_id: str) -> Verified:
    """Look whether anything of a batch is left.

    Args:
        connection: A connection in autocommit mode.
        batch_id: A batch that was rolled back.

    Returns:
        For each of its tables: no row has its stamp, no before-image is its own or leads to it, and
        what came back came back as it had been.

    Raises:
        RollbackError: The batch is not rolled back.
    """
    batch = batches.by_id(connection, batch_id)
    if batch.status != "ROLLED_BACK":
        message = f"Batch {batch_id} ({batch.name}) is {batch.status}, and not rolled back."
        raise RollbackError(message)
    checks = []
    for done in rollbacks.of_batch(connection, batch_id):
        name = done.target_table
        if not is_stamped(connection, name):
            continue
        parts = {
            "table": sql.Identifier(*name.split(".")), "stamp": sql.Identifier(STAMP),
            "batch": sql.Literal(batch_id), "name": sql.Literal(name),
        }  # fmt: skip
        for kind, query in (
            ("rows_left", _STAMPED), ("images_left", _IMAGES), ("came_back_otherwise", _DIFFERING),
        ):  # fmt: skip
            checks.append(_check(connection, f"{name} {kind}", query.format(**parts)))
    return Verified(batch, tuple(checks))


def _check(connection: Connection, name: str, query: sql.Composed) -> Check:
    began = time.perf_counter()
    row = connection.execute(query).fetchone()
    found = int(row[0]) if row else 0
    return Check(
        name, query.as_string(connection).strip(), "0", str(found),
        "SUCCESS" if found == 0 else "FAILED", time.perf_counter() - began,
    )  # fmt: skip
