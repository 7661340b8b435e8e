"""The transaction that deletes: all is looked at once more in it, and all of it happens or nothing.

Its order: holds (so that none is set before it ends), the advisory locks of the tables by OID, the
tables themselves against writers who know nothing of those; then the plan's question again; then the
delete, of which count and digest must be those that were read back from the archive; at last the lease,
the ledger's word, the event, COMMIT.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, LiteralString

from psycopg import sql as pg
from psycopg.rows import scalar_row

from batch_pipelines.engine.archiving.choosing import place_of
from batch_pipelines.engine.archiving.rows.live import live_rows
from batch_pipelines.engine.catalog import has_cycle, parents_first, read_table
from batch_pipelines.engine.errors import RetentionError
from batch_pipelines.engine.failpoints import failpoint
from batch_pipelines.engine.ledger import batches, events
from batch_pipelines.engine.postgres.database import lock_tables
from batch_pipelines.engine.retention import holds, record, sql
from batch_pipelines.engine.retention.records import Digest, tables_of
from batch_pipelines.engine.writing.settling import settled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batch_pipelines.engine.archiving.rows.account import TableRows
    from batch_pipelines.engine.catalog import TableInfo
    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.postgres.database import Connection, Database
    from batch_pipelines.engine.postgres.lease import Lease
    from batch_pipelines.engine.retention.plan import Found, Planner
    from batch_pipelines.engine.retention.record import Course
    from batch_pipelines.engine.retention.records import Account
    from batch_pipelines.engine.settings import Settings

# Whoever wants to write to the table queues behind us while we wait for its lock: so not for long.
_TABLE_LOCK_WAIT = "3s"
_LONGEST_STATEMENT = "2h"


class KeptError(Exception):
    """What was about to be deleted is kept after all.

    Attributes:
        why: What keeps it.
    """

    def __init__(self, why: Sequence[str]) -> None:
        super().__init__("; ".join(why))
        self.why = tuple(why)


@dataclass(frozen=True)
class Deletion:
    """One class of data of one batch, about to be deleted.

    Attributes:
        database: Where a lost answer to COMMIT is asked for.
        settings: Say where bags stand.
        planner: Says what keeps it.
        course: Who runs it.
        item: What was found.
        chunk_id: Its number in the record.
        lease: On the batch's partition.
    """

    database: Database
    settings: Settings
    planner: Planner
    course: Course
    item: Found
    chunk_id: int
    lease: Lease

    @property
    def feed(self) -> Feed:
        """The batch's feed."""
        return self.planner.feeds[self.item.feed]

    def rows(self, connection: Connection, tables: Sequence[TableRows], place: str) -> None:
        """Delete the rows of the batch, which is `ARCHIVED` from then on.

        Args:
            connection: A connection in autocommit mode.
            tables: What was read back of them.
            place: The bag that has them.

        Raises:
            KeptError: Something keeps them.
            RetentionError: They are others than those in the bag.
            LeaseLostError: Another run has taken the partition over.
            psycopg.Error: PostgreSQL refused.
        """
        with settled(connection, self.database, purpose="retention"):
            holds.lock_holds(connection)
            lock_target_tables(connection, [table.full_name for table in tables])
            failpoint("retention.locked", connection)
            self._look_again(connection)
            for found in live_rows(connection, self.item.batch_id, tables):
                if not found.is_same:
                    raise _differ(self.item, found.full_name, found.live, found.kept, place)
            gone = _delete_rows(connection, self.item.batch_id, tables)
            for table in tables:
                if gone[table.full_name] != table.digest.rows:
                    raise _differ(
                        self.item, table.full_name, gone[table.full_name], table.digest.rows, place
                    )
            failpoint("retention.deleted", connection)
            if not connection.execute(sql.ARCHIVED, (self.item.batch_id,)).rowcount:
                raise KeptError((f"the batch is {self._batch(connection).status}",))
            self._tell(connection, sum(gone.values()), place, "rows.archived")

    def records(self, connection: Connection, kept: Account, place: str) -> None:
        """Delete lines of the ledger.

        Args:
            connection: A connection in autocommit mode.
            kept: What was read back of them.
            place: The bag that has them.

        Raises:
            KeptError: Something keeps them.
            RetentionError: They are others than those in the bag.
            LeaseLostError: Another run has taken the partition over.
            psycopg.Error: PostgreSQL refused.
        """
        with settled(connection, self.database, purpose="retention"):
            holds.lock_holds(connection)
            failpoint("retention.locked", connection)
            self._look_again(connection)
            batch = self._batch(connection)
            gone = {}
            for name, order in tables_of(self.item.data_class, batch.status).items():
                query = _delete_lines(connection, name, order, batch.batch_id)
                digest = Digest()
                with connection.cursor(row_factory=scalar_row) as cursor:
                    # One by one: however many there are, they are not held here.
                    for line in cursor.stream(query):
                        digest.add(line)
                if digest.lines().number:
                    gone[name] = digest.lines()
            for name in gone.keys() | kept.keys():
                if gone.get(name) != kept.get(name):
                    raise _differ(self.item, name, gone.get(name), kept.get(name), place)
            failpoint("retention.deleted", connection)
            if self.item.data_class == "before_images":
                connection.execute(sql.NO_ROLLBACK, (batch.batch_id,))
            number = sum(lines.number for lines in gone.values())
            self._tell(connection, number, place, f"{self.item.data_class}.archived")

    def bags(self, connection: Connection) -> None:
        """Delete the batch's bags of what was delivered, and of lines of the ledger.

        They go while no hold can be set. A process that dies between has left the ledger's word as it
        was: what is left of a bag goes the next time, and nobody takes it for a whole one meanwhile.

        Args:
            connection: A connection in autocommit mode.

        Raises:
            KeptError: Something keeps them.
            ArchiveError: They cannot be deleted.
            LeaseLostError: Another run has taken the partition over.
            psycopg.Error: PostgreSQL refused.
        """
        with settled(connection, self.database, purpose="retention"):
            holds.lock_holds(connection)
            self._look_again(connection)
            self.lease.hold(connection)
            places = connection.execute(sql.BAGS, (self.item.batch_id,)).fetchall()
            for (place,) in places:
                archive, bag = place_of(self.settings, place)
                archive.remove(bag)
                connection.execute(sql.BAG_DELETED, (place,))
            failpoint("retention.deleted", connection)
            self._tell(connection, len(places), None, "bags.deleted")

    def _look_again(self, connection: Connection) -> None:
        now = self.planner.again(connection, self.item)
        if now.kept_by:
            raise KeptError(now.kept_by)

    def _batch(self, connection: Connection) -> Batch:
        return batches.by_id(connection, self.item.batch_id)

    def _tell(self, connection: Connection, gone: int, place: str | None, action: str) -> None:
        self.lease.fence(connection)
        record.end(connection, self.chunk_id, "DELETED")
        # The trail vouches for a batch's details by a root over them, which are others now.
        ((root,),) = connection.execute(sql.ROOT, (self.item.batch_id,)).fetchall()
        details = {**record.told(self.item), "deleted": gone, "place": place, "root": root}
        told = self.course.event(
            f"batch.{action}", "SUCCESS", details, batch_id=self.item.batch_id, feed=self.feed
        )
        events.append(connection, told)


def _delete_lines(
    connection: Connection, name: LiteralString, order: LiteralString, batch_id: str
) -> pg.Composed:
    """Give the statement that deletes lines, after what has to come before it."""
    table, batch = pg.Identifier(name), pg.Literal(batch_id)
    view = sql.OPENED.get(name)
    if view is None:
        return sql.DELETE_LINES.format(table=table, batch=batch, order=pg.SQL(order))
    connection.execute(sql.LOCK_LINES.format(table=table, batch=batch))
    return sql.DELETE_OPENED.format(
        table=table, batch=batch, order=pg.SQL(order), view=pg.Identifier(view)
    )


def lock_target_tables(connection: Connection, names: Sequence[str]) -> None:
    """Keep all others from writing to tables until the transaction ends.

    Args:
        connection: A connection inside a transaction.
        names: The tables, as in `public.flights`.

    Raises:
        psycopg.errors.LockNotAvailable: Somebody else holds one.
    """
    tables = connection.execute(sql.OIDS, ([*names],)).fetchall()
    lock_tables(connection, [oid for oid, *_ in tables], exclusive=True)
    connection.execute(sql.SET, ("lock_timeout", _TABLE_LOCK_WAIT))
    connection.execute(sql.SET, ("statement_timeout", _LONGEST_STATEMENT))
    for _, schema, name in tables:
        connection.execute(sql.LOCK_ROWS.format(pg.Identifier(schema, name)))


def _delete_rows(
    connection: Connection, batch_id: str, tables: Sequence[TableRows]
) -> dict[str, int]:
    """Delete the rows of a batch, children before parents; give how many went of each table."""
    infos = parents_first(read_table(connection, None, table.full_name) for table in tables)
    batch = pg.SQL("{}::uuid").format(pg.Literal(batch_id))
    if has_cycle(infos):
        return _delete_at_once(connection, batch, infos)
    return {
        info.full_name: connection.execute(
            sql.DELETE_ROWS.format(table=info.identifier, stamp=sql.STAMP_NAME, batch=batch)
        ).rowcount
        for info in reversed(infos)
    }


def _delete_at_once(
    connection: Connection, batch: pg.Composed, infos: Sequence[TableInfo]
) -> dict[str, int]:
    names = [pg.Identifier(f"gone{number}") for number in range(len(infos))]
    parts = [
        sql.ONE_OF_THEM.format(name=name, table=info.identifier, stamp=sql.STAMP_NAME, batch=batch)
        for name, info in zip(names, infos, strict=True)
    ]
    counts = [pg.SQL("(SELECT count(*) FROM {})").format(name) for name in names]
    query = sql.DELETE_AT_ONCE.format(
        parts=pg.SQL(", ").join(parts), counts=pg.SQL(", ").join(counts)
    )
    (gone,) = connection.execute(query).fetchall()
    return {info.full_name: int(n) for info, n in zip(infos, gone, strict=True)}


def _differ(item: Found, table: str, live: object, kept: object, place: str) -> RetentionError:
    return RetentionError(
        f"{item.name}: {table} has other rows of batch {item.batch_id} ({live}) than {place} ({kept}); "
        "nothing was deleted. Run again: what is there now is archived then."
    )
