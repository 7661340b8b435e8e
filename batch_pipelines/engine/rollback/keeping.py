"""Letting rows of a batch stay that somebody has touched or refers to: they are the batch's no more.

A row that was changed by hand, or that others refer to, loses the stamp: from now on it counts as
typed in by hand, and no rollback ever takes it. One that a later batch has overwritten has that one's
stamp already; the rollback relinks its image (`chains`). After that the batch can be taken back exactly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import sql

from batch_pipelines.engine.catalog import is_stamped
from batch_pipelines.engine.rollback.plan import MISSING, PLACE_TAKEN, staying
from batch_pipelines.engine.rollback.targets import joined
from batch_pipelines.engine.rollback.touched import TOUCHED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batch_pipelines.engine.catalog import ForeignKey
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.rollback.targets import Target

_RELEASE_TOUCHED = sql.SQL("""
UPDATE {table} t SET {stamp} = NULL FROM {touched} x
WHERE x.target = {name} AND x.relation = t.tableoid AND x.place = t.ctid
""")
_RELEASE_IMAGES = sql.SQL("""
UPDATE batch_audit.row_before_image i SET previous_batch_id = NULL, row_xmin = NULL
FROM {touched} x WHERE x.target = {name} AND x.image = i.id
""")
_RELEASE_REFERRED = sql.SQL("""
UPDATE {table} t SET {stamp} = NULL
WHERE {going} AND EXISTS (SELECT FROM {child} c WHERE {staying} AND {same})
""")
_DROP_MISSING = sql.SQL("DELETE FROM batch_audit.row_before_image i WHERE {missing}")
_DROP_TAKEN = sql.SQL("DELETE FROM batch_audit.superseded_row s WHERE {taken}")
_FORGET = sql.SQL("DELETE FROM {touched} WHERE target = {name}")


def keep_rows(connection: Connection, targets: Sequence[Target]) -> dict[str, int]:
    """Release the rows of a batch that stay.

    Args:
        connection: A connection inside the rollback's transaction, in which a look was just taken.
        targets: The batch's tables.

    Returns:
        How many rows of each table stay under nobody's stamp.
    """
    kept = {}
    for target in targets:
        parts = target.parts() | {"touched": TOUCHED}
        kept[target.name] = connection.execute(_RELEASE_TOUCHED.format(**parts)).rowcount
        connection.execute(_RELEASE_IMAGES.format(**parts))
        connection.execute(_FORGET.format(**parts))
        if target.key:
            connection.execute(_DROP_MISSING.format(missing=MISSING.format(**parts)))
            connection.execute(_DROP_TAKEN.format(taken=PLACE_TAKEN.format(**parts)))
    # A row that stays may refer to another of the batch, which stays then, too, and so on.
    while released := [
        (target.name, rows)
        for target in reversed(targets)
        for key in target.table.children
        if key not in target.owned and (rows := _release_referred(connection, target, key))
    ]:
        for name, rows in released:
            kept[name] += rows
    return kept


def _release_referred(connection: Connection, target: Target, key: ForeignKey) -> int:
    stamped = is_stamped(connection, ".".join(key.child))
    query = _RELEASE_REFERRED.format(
        **target.parts(), child=sql.Identifier(*key.child), same=joined(key, "c", "t"),
        staying=staying(target, stamped=stamped),
    )  # fmt: skip
    return connection.execute(query).rowcount
