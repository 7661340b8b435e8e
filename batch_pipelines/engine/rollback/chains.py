"""Chains of before-images: who wrote what over whom, and what a row goes back to.

An image of a batch holds a row as an earlier batch had left it. When that one is taken back, the
image must become what was before it; when it was superseded meanwhile, the row goes back to what that
one's own image holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import sql

if TYPE_CHECKING:
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.rollback.targets import Target

# One step down the chain, for images of rows whose writer was superseded and not overtaken by us.
_SETTLE = sql.SQL("""
UPDATE batch_audit.row_before_image i
SET image = j.image, previous_batch_id = j.previous_batch_id, row_xmin = j.row_xmin
FROM batch_audit.row_before_image j
JOIN batch_audit.import_history h ON h.batch_id = j.batch_id AND h.status = 'SUPERSEDED'
WHERE i.batch_id = {batch} AND i.target_table = {name} AND j.batch_id = i.previous_batch_id
  AND j.target_table = {name} AND j.row_key = i.row_key
""")
# A superseded batch had made the row: there is nothing below.
_NOTHING_BELOW = sql.SQL("""
DELETE FROM batch_audit.row_before_image i USING batch_audit.import_history h
WHERE i.batch_id = {batch} AND i.target_table = {name} AND h.batch_id = i.previous_batch_id
  AND h.status = 'SUPERSEDED'
""")
# An image that has passed on is done with, unless a row of the batch goes back to it as well: then the
# later image is one of a batch that was superseded itself.
_RELINK = sql.SQL("""
WITH passed AS (
    UPDATE batch_audit.row_before_image l
    SET image = i.image, previous_batch_id = i.previous_batch_id, row_xmin = i.row_xmin
    FROM batch_audit.row_before_image i
    WHERE l.previous_batch_id = {batch} AND l.target_table = {name}
      AND i.batch_id = {batch} AND i.target_table = {name} AND i.row_key = {key_in_later}
    RETURNING i.id)
DELETE FROM batch_audit.row_before_image i USING passed
WHERE i.id = passed.id AND NOT EXISTS (
    SELECT FROM {table} t WHERE {key} = i.row_key AND t.{stamp} = {batch})
""")
_MADE_BY_US = sql.SQL("""
DELETE FROM batch_audit.row_before_image l
WHERE l.previous_batch_id = {batch} AND l.target_table = {name}
""")
# The superseded batch's own images, which passed on to this one, go back to it.
_GIVE_BACK = sql.SQL("""
UPDATE batch_audit.row_before_image i SET batch_id = s.previous_batch_id
FROM batch_audit.superseded_row s
WHERE i.batch_id = {batch} AND i.target_table = {name}
  AND s.batch_id = {batch} AND s.target_table = {name} AND s.row_key = i.row_key
""")
_TAKE_OVER = sql.SQL("""
INSERT INTO batch_audit.row_before_image (batch_id, target_table, row_key, image, previous_batch_id,
    row_xmin)
SELECT s.batch_id, s.target_table, s.row_key, s.image, s.previous_batch_id, s.row_xmin
FROM batch_audit.superseded_row s WHERE s.batch_id = {batch} AND s.target_table = {name}
""")
_FORGET_SUPERSEDED = sql.SQL("""
DELETE FROM batch_audit.superseded_row s WHERE s.batch_id = {batch} AND s.target_table = {name}
""")


def settle(connection: Connection, target: Target) -> None:
    """Make a batch's images lead to rows of batches in force, or of nobody.

    Args:
        connection: A connection inside a transaction.
        target: The batch's table.
    """
    if not target.has_images:
        return
    parts = target.parts()
    while connection.execute(_SETTLE.format(**parts)).rowcount:
        pass
    connection.execute(_NOTHING_BELOW.format(**parts))


def take_over_superseded(connection: Connection, target: Target) -> None:
    """Make the rows of the superseded batch the images to which this one's rows go back.

    Args:
        connection: A connection inside a transaction.
        target: The batch's table, with a key.
    """
    parts = target.parts()
    connection.execute(_GIVE_BACK.format(**parts))
    connection.execute(_TAKE_OVER.format(**parts))
    connection.execute(_FORGET_SUPERSEDED.format(**parts))


def relink(connection: Connection, target: Target) -> None:
    """Take a batch out of the chains: later images become what was before it.

    Args:
        connection: A connection inside a transaction.
        target: The batch's table; its own images are settled.
    """
    if not target.later_key:
        return
    parts = target.parts()
    if target.key:
        connection.execute(_RELINK.format(**parts))
    connection.execute(_MADE_BY_US.format(**parts))
