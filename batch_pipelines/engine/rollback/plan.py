"""The plan: what the rollback of a batch would do in each table, and what stands in its way.

The same look is taken before anything is done and, under the locks, inside the transaction that does it.
Counts only: a plan is shown in logs, and holds no value of a row.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from psycopg import sql

from batch_pipelines.engine.catalog import STAMP, foreign_keys_to, is_stamped
from batch_pipelines.engine.ledger import archives, batches, rollbacks
from batch_pipelines.engine.retention import holds
from batch_pipelines.engine.rollback.targets import STAMP_NAME, joined, targets_of, uuid
from batch_pipelines.engine.rollback.touched import OVERWRITTEN, find_touched

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from batch_pipelines.engine.catalog import ForeignKey
    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.rollback.targets import Target
    from batch_pipelines.engine.settings import Settings

_EFFECTS = {
    "a": "they would refer to nothing",
    "r": "they would refer to nothing",
    "c": "they would be deleted too (CASCADE)",
    "n": "they would be blanked (SET NULL)",
    "d": "they would be reset (SET DEFAULT)",
}
_UPDATE_EFFECTS = _EFFECTS | {"c": "they would be changed too (CASCADE)"}

_GOING = sql.SQL("SELECT count(*) FROM {table} t WHERE {going}")
# Of rows that a batch has overwritten, the newest says whose they are now.
_OVERWRITTEN_BY = sql.SQL("""
SELECT t.{stamp}::text, count(DISTINCT i.row_key)
FROM batch_audit.row_before_image i LEFT JOIN {table} t ON {later_key} = i.row_key
WHERE {overwritten} GROUP BY 1
""")
# A row that the batch updated, and that is gone, or is somebody else's without the ledger knowing.
MISSING = sql.SQL("""
i.batch_id = {batch} AND i.target_table = {name}
AND NOT EXISTS (SELECT FROM {table} t WHERE {key} = i.row_key AND t.{stamp} = {batch})
AND NOT EXISTS (SELECT FROM batch_audit.row_before_image l
    WHERE l.previous_batch_id = {batch} AND l.target_table = {name} AND {key_in_later} = i.row_key)
""")
# What would come back without a value that it had.
_BLANKED = """
SELECT count(*) FROM (
    SELECT batch_id, target_table, image FROM batch_audit.superseded_row
    UNION ALL
    SELECT batch_id, target_table, image FROM batch_audit.row_before_image) AS kept
WHERE batch_id = %(batch)s AND target_table = %(table)s
    AND EXISTS (SELECT FROM unnest(%(columns)s::text[]) AS c WHERE image ->> c IS NOT NULL)
"""
_COUNT_MISSING = sql.SQL("SELECT count(*) FROM batch_audit.row_before_image i WHERE {missing}")
# A row that comes back is absent, or this batch's, or as the superseding left it: what it had been
# before the superseded batch. `old` is that one's image of it.
PLACE_TAKEN = sql.SQL("""
s.batch_id = {batch} AND s.target_table = {name} AND s.row_key IS NOT NULL
AND NOT EXISTS (SELECT FROM {table} t WHERE {key} = s.row_key AND t.{stamp} = {batch})
AND NOT EXISTS (SELECT FROM batch_audit.row_before_image l
    WHERE l.previous_batch_id = {batch} AND l.target_table = {name} AND {key_in_later} = s.row_key)
AND NOT EXISTS (SELECT FROM {table} t
    JOIN batch_audit.row_before_image i ON i.batch_id = s.previous_batch_id
        AND i.target_table = {name} AND i.row_key = s.row_key
    WHERE {key} = s.row_key AND t.{stamp} IS NOT DISTINCT FROM i.previous_batch_id
        AND {row_image} = {image_part})
AND (EXISTS (SELECT FROM {table} t WHERE {key} = s.row_key)
     OR EXISTS (SELECT FROM batch_audit.row_before_image i WHERE i.batch_id = s.previous_batch_id
         AND i.target_table = {name} AND i.row_key = s.row_key))
""")
_TAKEN_BY = sql.SQL("""
SELECT (SELECT t.{stamp}::text FROM {table} t WHERE {key} = s.row_key), count(*)
FROM batch_audit.superseded_row s WHERE {taken} GROUP BY 1
""")
_RESTORED = sql.SQL("""
SELECT count(*) FROM {table} t WHERE t.{stamp} = {batch} AND NOT ({going}) AND NOT EXISTS (
    SELECT FROM batch_audit.superseded_row s
    WHERE s.batch_id = {batch} AND s.target_table = {name} AND s.row_key = {key})
""")
_COUNT_SUPERSEDED = sql.SQL("""
SELECT count(*) FROM batch_audit.superseded_row s WHERE s.batch_id = {batch} AND s.target_table = {name}
""")
_REFERRING = sql.SQL("""
SELECT {whose}, count(*) FROM {child} c
WHERE {staying} AND EXISTS (SELECT FROM {table} t WHERE ({going}) AND {same}) GROUP BY 1
""")
_CHANGING = sql.SQL("""
SELECT {whose}, count(*) FROM {child} c
WHERE EXISTS (SELECT FROM {table} t
    JOIN batch_audit.row_before_image i ON i.batch_id = {batch} AND i.target_table = {name}
        AND i.row_key = {key}
    WHERE t.{stamp} = {batch} AND {same} AND ({changed})) GROUP BY 1
""")
_OWNED = sql.SQL("SELECT count(*) FROM {child} c WHERE {owned}")
_REFERRING_TO_OWNED = sql.SQL("""
SELECT count(*) FROM {grandchild} g WHERE EXISTS (SELECT FROM {child} c WHERE {same} AND {owned})
""")
_TRIGGERS = """
SELECT tgname FROM pg_trigger WHERE tgrelid = %s AND NOT tgisinternal AND tgenabled <> 'D' ORDER BY 1
"""


@dataclass(frozen=True)
class TablePlan:
    """What happens to a batch's rows in one table; all counts are rows.

    Attributes:
        target_table: The table.
        delete: Rows that go.
        restore: Rows that get their before-image back.
        reinstate: Rows of the superseded batch that come back.
        owned: Rows of other tables that go with them because the feed declares them theirs.
        missing: Rows that the batch wrote and that are in the table no more, nor overwritten.
    """

    target_table: str
    delete: int
    restore: int
    reinstate: int
    owned: int
    missing: int


@dataclass(frozen=True)
class Obstacle:
    """What keeps a batch from being taken back.

    Attributes:
        target_table: The table of the batch's rows.
        rows: How many rows are in the way.
        what: Why, as the rest of a sentence that begins with their number.
        by_batch: The batch that did it, where it is in force: with `cascade` it goes first. None where
            it was done by hand.
        kind: `overwritten` by a later batch; `touched` by hand; a `blocker` refers to rows that go; what
            is `final` keeping does not help.
    """

    target_table: str
    rows: int
    what: str
    by_batch: str | None
    kind: str

    def __str__(self) -> str:
        return f"{self.target_table}: {self.rows:,} rows {self.what}"


@dataclass(frozen=True)
class Plan:
    """What the rollback of one batch would do.

    Attributes:
        batch: The batch.
        tables: What happens in each of its tables.
        obstacles: What stands in the way; with none it can be done.
        notes: What cannot be taken back, and what else there is to know.
        reinstated: The batch that it superseded and that is in force again afterwards, or None.
    """

    batch: Batch
    tables: tuple[TablePlan, ...]
    obstacles: tuple[Obstacle, ...]
    notes: tuple[str, ...]
    reinstated: str | None

    @property
    def dependents(self) -> tuple[str, ...]:
        """Batches in force that depend on this one."""
        return tuple(dict.fromkeys(o.by_batch for o in self.obstacles if o.by_batch is not None))

    def in_a_circle_with(self, others: Iterable[str]) -> Plan:
        """Make the plan of a batch that has to go before batches that have to go before it.

        Args:
            others: Those batches.

        Returns:
            The plan, which no cascade can carry out.
        """
        what = (
            f"depend on batch {', '.join(sorted(others))} and are depended on by it, so neither goes "
            "first: roll one of them back with --keep-touched and without --cascade, then the other"
        )
        circle = Obstacle("all tables", self.batch.written_records or 0, what, None, "final")
        return replace(self, obstacles=(circle,))

    def refusal(self) -> str:
        """Say why it cannot be done as it is, and what helps."""
        why = "; ".join(map(str, self.obstacles))
        advice = ""
        if all(obstacle.by_batch is not None for obstacle in self.obstacles):
            advice += " `--cascade` takes the later batches back too."
        if all(obstacle.kind != "final" for obstacle in self.obstacles):
            advice += " `--keep-touched` lets these rows stay."
        return (
            f"Batch {self.batch.batch_id} ({self.batch.name}) cannot be rolled back as it is, and "
            f"nothing was changed: {why}.{advice}"
        )


def look(
    connection: Connection,
    settings: Settings,
    batch: Batch,
    feeds: Mapping[str, Feed],
    *,
    trusted: bool = False,
) -> tuple[Plan, tuple[Target, ...]]:
    """Look at what the rollback of a batch in force would do, and change nothing.

    Args:
        connection: A connection inside a transaction.
        settings: Says where row digests are.
        batch: The batch, in force.
        feeds: The feeds by name; of one whose file is gone nothing is owned.
        trusted: Whether rows that somebody has touched were let go already.

    Returns:
        The plan, and the batch's tables, parents first.
    """
    targets, gone = targets_of(connection, batch.batch_id, feeds.get(batch.feed))
    old = rollbacks.superseded_by(connection, batch.batch_id)
    tables = []
    obstacles = [*_final(connection, batch, old)]
    notes = [f"{name}: the table is gone, or has no column {STAMP} any more." for name in gone]
    for target in targets:
        planned, found = _look_at(connection, settings, target, trusted=trusted)
        tables.append(planned)
        obstacles += found
        notes += _irreversible(connection, target)
        notes += _not_owned(target, feeds.get(batch.feed))
        if target.recorded is None:
            notes.append(
                f"{target.name}: of these rows no digest is known; changes by hand do not show."
            )
        if planned.missing > 0:
            notes.append(f"{target.name}: {planned.missing:,} of its rows are gone already.")
    return Plan(batch, tuple(tables), tuple(obstacles), tuple(notes), old), targets


def _final(connection: Connection, batch: Batch, old: str | None) -> Iterator[Obstacle]:
    for hold in holds.over(connection, batch.batch_id):
        # Of rows that go nothing is kept: whoever may take them away may lift the hold, and says why.
        what = (
            f"are under {hold}; nothing that is held is taken away. Where it may be: "
            f"batch-pipelines hold lift {hold.hold_id} --reason TEXT"
        )
        yield Obstacle("all tables", batch.written_records or 0, what, None, "final")
    until = batch.rollback_possible_until
    if until is not None and until < dt.datetime.now(dt.UTC):
        what = f"could be rolled back until {until:%Y-%m-%d %H:%M} UTC; import a correction instead"
        yield Obstacle("all tables", batch.written_records or 0, what, None, "final")
    if old is not None and not rollbacks.are_kept(connection, batch.batch_id):
        lost = batches.by_id(connection, old)
        bag = archives.bag(connection, old)
        where = "" if bag is None else f" (its files are in {bag.place})"
        what = (
            f"of batch {old}, which it superseded, were not kept; import that delivery again{where}, "
            "or raise `rollback: superseded_rows` in the feed before the next correction"
        )
        yield Obstacle("all tables", lost.written_records or 0, what, None, "final")


def _look_at(
    connection: Connection, settings: Settings, target: Target, *, trusted: bool
) -> tuple[TablePlan, list[Obstacle]]:
    blanked = _blanked(connection, target)
    if blanked is not None:
        nothing = TablePlan(target.name, delete=0, restore=0, reinstate=0, owned=0, missing=0)
        return nothing, [blanked]
    found = find_touched(connection, settings, target, trusted=trusted)
    parts = target.parts()
    going = found.rows if target.is_plain else _number(connection, _GOING.format(**parts))
    restored, reinstated = found.rows - going, 0
    if target.has_superseded:
        reinstated = _number(connection, _COUNT_SUPERSEDED.format(**parts))
        restored = _number(connection, _RESTORED.format(**parts))
    obstacles: list[Obstacle] = []
    by_hand = found.touched + found.touched_images
    if by_hand:
        what = "were changed by hand since"
        obstacles.append(Obstacle(target.name, by_hand, what, None, "touched"))
    missing_images = 0
    if found.overwritten:
        query = _OVERWRITTEN_BY.format(**parts, overwritten=OVERWRITTEN.format(**parts))
        obstacles += _by_whom(connection, target, query, "were overwritten since", "overwritten")
    if target.has_images and target.key:
        query = _COUNT_MISSING.format(missing=MISSING.format(**parts))
        missing_images = _number(connection, query)
        if missing_images:
            what = "that it had updated were deleted or replaced by hand since"
            obstacles.append(Obstacle(target.name, missing_images, what, None, "touched"))
    if target.has_superseded and target.key:
        query = _TAKEN_BY.format(**parts, taken=PLACE_TAKEN.format(**parts))
        what = (
            "of the superseded batch cannot come back, because their key is taken or given up since"
        )
        obstacles += _by_whom(connection, target, query, what, "touched")
    obstacles += _blockers(connection, target, parts)
    owned = sum(_owned(connection, target, own) for own in target.owned)
    recorded = target.recorded
    missing = 0
    if recorded is not None:
        written = recorded.inserted + recorded.updated + recorded.unchanged
        missing = written - found.rows - found.overwritten - missing_images
    plan = TablePlan(
        target.name,
        delete=going,
        restore=restored,
        reinstate=reinstated,
        owned=owned,
        missing=missing,
    )
    return plan, obstacles


def _blanked(connection: Connection, target: Target) -> Obstacle | None:
    """Find rows that would come back without a value, because its column was dropped or renamed."""
    if not target.lost_columns:
        return None
    wanted = {
        "batch": target.batch_id, "table": target.name, "columns": list(target.lost_columns),
    }  # fmt: skip
    ((rows,),) = connection.execute(_BLANKED, wanted).fetchall()
    if not rows:
        return None
    names = ", ".join(target.lost_columns)
    what = (
        f"that come back hold values of columns that the table has no more ({names}); add them again, "
        "or give them these names"
    )
    return Obstacle(target.name, int(rows), what, None, "final")


def _blockers(
    connection: Connection, target: Target, parts: dict[str, sql.Composable]
) -> Iterator[Obstacle]:
    """Find rows that stay and refer to rows that go, or would be changed with them."""
    for key in target.table.children:
        child = sql.Identifier(*key.child)
        stamped = is_stamped(connection, ".".join(key.child))
        whose = sql.SQL("c.{}::text").format(STAMP_NAME) if stamped else sql.SQL("NULL::text")
        more = parts | {"child": child, "whose": whose, "same": joined(key, "c", "t")}
        if key in target.owned:
            yield from _grandchildren(connection, target, key)
        else:
            query = _REFERRING.format(**more, staying=staying(target, stamped=stamped))
            what = f"of {'.'.join(key.child)} refer to rows that go ({key.name}); "
            what += _EFFECTS[key.on_delete]
            yield from _by_whom(connection, target, query, what, "blocker")
        changed = [name for name in key.parent_columns if name not in target.key]
        assigned = {c.name for c in target.kept_columns if not c.computed}
        changed = [name for name in changed if name in assigned]
        if target.has_images and target.key and changed:
            differs = sql.SQL(" OR ").join(
                sql.SQL("t.{}::text IS DISTINCT FROM i.image ->> {}").format(
                    sql.Identifier(name), sql.Literal(name)
                )
                for name in changed
            )
            what = f"of {'.'.join(key.child)} refer to values that change back ({key.name}); "
            what += _UPDATE_EFFECTS[key.on_update]
            yield from _by_whom(
                connection, target, _CHANGING.format(**more, changed=differs), what, "final"
            )


def staying(target: Target, *, stamped: bool) -> sql.Composable:
    """Say, as a condition on a row `c` that refers to the target's, that it stays.

    Args:
        target: The batch's table.
        stamped: Whether the rows that refer have a stamp.
    """
    if not stamped:
        return sql.SQL("true")
    return sql.SQL("c.{} IS DISTINCT FROM {}").format(STAMP_NAME, uuid(target.batch_id))


def _grandchildren(connection: Connection, target: Target, own: ForeignKey) -> Iterator[Obstacle]:
    """Find rows that refer to owned rows, which go."""
    for key in foreign_keys_to(connection, own.child_oid):
        query = _REFERRING_TO_OWNED.format(
            grandchild=sql.Identifier(*key.child), child=sql.Identifier(*own.child),
            same=joined(key, "g", "c"), owned=target.owned_rows(own, "c"),
        )  # fmt: skip
        if rows := _number(connection, query):
            what = f"of {'.'.join(key.child)} refer to owned rows of {'.'.join(own.child)} that go "
            what += f"({key.name}); {_EFFECTS[key.on_delete]}"
            yield Obstacle(target.name, rows, what, None, "final")


def _owned(connection: Connection, target: Target, own: ForeignKey) -> int:
    query = _OWNED.format(child=sql.Identifier(*own.child), owned=target.owned_rows(own, "c"))
    return _number(connection, query)


def _by_whom(
    connection: Connection, target: Target, query: sql.Composed, what: str, kind: str
) -> Iterator[Obstacle]:
    """Tell obstacles by batches in force, which can go too, from those by anybody else."""
    by_hand = 0
    for stamp, rows in connection.execute(query).fetchall():
        status = None if stamp is None else _status(connection, stamp)
        if stamp is not None and stamp != target.batch_id and status in batches.IN_FORCE:
            told = f"{what} (batch {stamp})"
            yield Obstacle(target.name, int(rows), told, stamp, kind)
        else:
            by_hand += int(rows)
    if by_hand:
        yield Obstacle(target.name, by_hand, f"{what} (by hand)", None, kind)


def _status(connection: Connection, batch_id: str) -> str | None:
    row = connection.execute(
        "SELECT status FROM batch_audit.import_history WHERE batch_id = %s", (batch_id,)
    ).fetchone()
    return None if row is None else str(row[0])


def _irreversible(connection: Connection, target: Target) -> Iterator[str]:
    for column in target.table.columns:
        if (column.default_sql or "").startswith("nextval("):
            yield f"{target.name}: the sequence of {column.name} stays where it is."
    for (trigger,) in connection.execute(_TRIGGERS, (target.table.oid,)).fetchall():
        yield (
            f"{target.name}: what trigger {trigger} wrote elsewhere stays, and it fires for the "
            "rollback too."
        )


def _not_owned(target: Target, feed: Feed | None) -> Iterator[str]:
    """Tell of tables that are declared owned and do not refer to the target."""
    referring = {".".join(key.child) for key in target.owned}
    for table in () if feed is None else feed.tables:
        for child in table.owned_children if table.table == target.name else ():
            if child not in referring:
                yield (
                    f"{target.name}: {child} is declared as owned, but has no foreign key to it; "
                    "none of its rows go."
                )


def _number(connection: Connection, query: sql.Composed) -> int:
    row = connection.execute(query).fetchone()
    return int(row[0]) if row else 0
