"""The one transaction in which a person leaves the tables, the quarantine and the ledger's images.

Its order: the partitions (so that no run is at work on them), holds, the tables against writers; all
obstacles once more; what the ledger vouches for of each batch, less the person's rows; the deletes; the
events, COMMIT. What is left of the person then stands in bags.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from psycopg import sql

from batch_pipelines.engine.catalog import STAMP
from batch_pipelines.engine.digests.as_sent import NO_COLUMNS, AsSent, ColumnGoneError, as_sent
from batch_pipelines.engine.digests.row_digest import RowDigest
from batch_pipelines.engine.digests.sql import table_digest
from batch_pipelines.engine.erasure.fitting import record_fewer, record_fewer_whole
from batch_pipelines.engine.erasure.plan import held
from batch_pipelines.engine.erasure.traces import remove_traces
from batch_pipelines.engine.errors import ErasureError
from batch_pipelines.engine.failpoints import failpoint
from batch_pipelines.engine.ledger import batches, erasures, events, proofs, rollbacks
from batch_pipelines.engine.postgres.lease import seize
from batch_pipelines.engine.retention import holds
from batch_pipelines.engine.retention.deleting import lock_target_tables
from batch_pipelines.engine.retention.sql import ROOT
from batch_pipelines.engine.verification.rows import GONE, batch_rows
from batch_pipelines.engine.writing.settling import settled

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from batch_pipelines.engine.digests.sides import BatchRows
    from batch_pipelines.engine.erasure.plan import Plan, Planner
    from batch_pipelines.engine.erasure.subject import Subject
    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.ledger.erasures import Erasure, Kind
    from batch_pipelines.engine.ledger.proofs import TableBalance
    from batch_pipelines.engine.postgres.database import Connection, Database

KINDS: Final[tuple[Kind, ...]] = ("rows", "before_images", "superseded_rows", "quarantine")
"""The kinds of places that are emptied here."""
_WRITERS: Final = sql.SQL("""
SELECT x.{stamp}::text FROM {table} AS x WHERE {mine} AND x.{stamp} IS NOT NULL
UNION SELECT x.previous_batch_id::text FROM batch_audit.row_before_image AS x
WHERE x.target_table = {name} AND {own_image} AND x.previous_batch_id IS NOT NULL
UNION SELECT x.previous_batch_id::text FROM batch_audit.superseded_row AS x
WHERE x.target_table = {name} AND {own_image}
ORDER BY 1
""")
_SUPERSEDED: Final = sql.SQL("batch_audit.superseded_row AS x")
_OF_SUPERSEDED: Final = sql.SQL("x.target_table = {name} AND x.previous_batch_id = {batch}")
_COUNT: Final = sql.SQL("SELECT count(*) FROM {rows} WHERE {where}")
_DELETE_ROWS: Final = sql.SQL("DELETE FROM {table} AS x WHERE {mine} RETURNING x.{stamp}::text")
_DELETE_IMAGES: Final = sql.SQL("""
DELETE FROM batch_audit.row_before_image AS x WHERE x.target_table = {name} AND {mine}
RETURNING x.batch_id::text
""")
_DELETE_SUPERSEDED: Final = sql.SQL("""
DELETE FROM batch_audit.superseded_row AS x WHERE x.target_table = {name} AND {mine}
RETURNING x.batch_id::text
""")
_DELETE_REJECTS: Final = """
DELETE FROM batch_audit.import_reject AS x
USING unnest(%s::text[], %s::bigint[]) AS p (file_name, number)
WHERE x.batch_id = %s AND x.target_table = %s AND x.file_name = p.file_name
  AND x.record_number = p.number
RETURNING x.replayed_at IS NULL AND NOT x.skipped
"""
_FEWER_REJECTS: Final = """
UPDATE batch_audit.batch_table SET erased_rejects = coalesce(erased_rejects, 0) + %s
WHERE batch_id = %s AND target_table = %s
"""


@dataclass(frozen=True)
class RowsErasure:
    """A person who is to leave the tables.

    Attributes:
        database: Where a lost answer to COMMIT is asked for.
        planner: Knows the person, and what stands in the way.
        erasure: What was written down of it.
        event: Makes the audit trail's entry of a step: action, status, batch, details.
    """

    database: Database
    planner: Planner
    erasure: Erasure
    event: Callable[[str, str, str | None, dict[str, object]], events.Event]

    @property
    def subject(self) -> Subject:
        """The person."""
        return self.planner.subject

    def run(self, connection: Connection, plan: Plan) -> None:
        """Erase.

        Args:
            connection: A connection in autocommit mode.
            plan: Where the person is.

        Raises:
            ErasureError: Something stands in the way by now, or a batch has the person that had not
                before; nothing was erased.
            BusyError: A run is at work on a partition.
            psycopg.Error: PostgreSQL refused.
        """
        known = {place.batch_id for place in plan.places if place.batch_id is not None}
        found = [batches.by_id(connection, batch_id) for batch_id in sorted(known)]
        with settled(connection, self.database, purpose="erase"):
            for feed, key in sorted({(batch.feed, batch.partition_key) for batch in found}):
                seize(connection, feed, key)
            holds.lock_holds(connection)
            lock_target_tables(connection, [self.subject.table.full_name])
            self.subject.bind(connection)
            failpoint("erase.locked", connection)
            by_hand = any(place.batch_id is None for place in plan.places)
            self._look_again(connection, found, by_hand=by_hand)
            writers = self._writers(connection)
            if new := {*writers} - known:
                message = (
                    f"Batch {min(new)} has loaded rows of the person meanwhile; nothing was erased. "
                    "Run again."
                )
                raise ErasureError(message)
            for batch_id in writers:
                self._vouch_for_others(connection, batches.by_id(connection, batch_id))
            gone = self._delete(connection, plan)
            changed = remove_traces(connection, self.subject, plan.keys, plan.places)
            failpoint("erase.deleted", connection)
            self._tell(connection, gone, changed | {*writers})

    def _look_again(self, connection: Connection, found: Sequence[Batch], *, by_hand: bool) -> None:
        why = [*self.planner.referring(connection)]
        for batch in found:
            why += held(connection, batch)
        if by_hand:
            why += held(connection, None)
        if why:
            message = f"Nothing was erased: {'; '.join(why)}."
            raise ErasureError(message)

    def _writers(self, connection: Connection) -> list[str]:
        table = self.subject.table
        query = _WRITERS.format(
            stamp=sql.Identifier(STAMP), table=table.identifier, mine=self.subject.row("x"),
            name=sql.Literal(table.full_name), own_image=self.subject.image("x"),
        )  # fmt: skip
        return [batch_id for (batch_id,) in connection.execute(query).fetchall()]

    def _vouch_for_others(self, connection: Connection, batch: Batch) -> None:
        """Take the person's rows out of the digests by which a batch's rows are known."""
        name = self.subject.table.full_name
        for recorded in proofs.tables(connection, batch.batch_id):
            if recorded.target_table != name:
                continue
            own = self._digest(connection, batch, recorded, None)
            if own.rows:
                record_fewer(connection, batch.batch_id, name, own)
            whole = rollbacks.whole(connection, batch.batch_id, name)
            if whole is not None and own.rows:
                digest = self._digest(connection, batch, recorded, whole.columns)
                record_fewer_whole(connection, batch.batch_id, name, digest)

    def _digest(
        self,
        connection: Connection,
        batch: Batch,
        recorded: TableBalance,
        names: Sequence[str] | None,
    ) -> RowDigest:
        """Digest the person's rows of a batch: of what was sent, or of all of some columns."""
        if batch.status in GONE:
            if batch.status != "SUPERSEDED":
                return RowDigest.zero()
            where = _OF_SUPERSEDED.format(
                name=sql.Literal(recorded.target_table), batch=sql.Literal(batch.batch_id)
            )
            columns = self._columns(connection, recorded, names)
            return self._of_images(connection, _SUPERSEDED, where, columns)
        rows, _ = batch_rows(connection, batch, recorded)
        columns = rows.columns if names is None else self._columns(connection, recorded, names)
        images = sql.SQL("{} AS x").format(rows.images)
        return self._of_table(connection, rows, columns) + self._of_images(
            connection, images, sql.SQL("true"), columns
        )

    def _columns(
        self, connection: Connection, recorded: TableBalance, names: Sequence[str] | None
    ) -> AsSent:
        types = [] if names is not None else recorded.column_types
        try:
            return as_sent(
                connection,
                recorded.target_table,
                recorded.columns if names is None else names,
                types or [],
            )
        except ColumnGoneError:
            return NO_COLUMNS

    def _of_table(self, connection: Connection, rows: BatchRows, columns: AsSent) -> RowDigest:
        values, valid = columns.row("x")
        table = sql.SQL("{} AS x").format(rows.table)
        where = sql.SQL("{} AND {} AND {}").format(rows.stamped, valid, self.subject.row("x"))
        return _digest_or_count(connection, table, values, where)

    def _of_images(
        self, connection: Connection, images: sql.Composable, which: sql.Composable, columns: AsSent
    ) -> RowDigest:
        values, valid = columns.image("x")
        where = sql.SQL("{} AND {} AND {}").format(which, valid, self.subject.image("x"))
        return _digest_or_count(connection, images, values, where)

    def _delete(self, connection: Connection, plan: Plan) -> dict[str | None, Counter[str]]:
        """Delete; give how much went of each kind, by batch."""
        table = self.subject.table
        name = sql.Literal(table.full_name)
        gone = defaultdict[str | None, Counter[str]](Counter)
        queries: dict[Kind, sql.Composed] = {
            "rows": _DELETE_ROWS.format(
                table=table.identifier, mine=self.subject.row("x"), stamp=sql.Identifier(STAMP)
            ),
            "before_images": _DELETE_IMAGES.format(name=name, mine=self.subject.image("x")),
            "superseded_rows": _DELETE_SUPERSEDED.format(name=name, mine=self.subject.image("x")),
        }
        for kind, query in queries.items():
            for (batch_id,) in connection.execute(query).fetchall():
                gone[batch_id][kind] += 1
        for place in plan.places:
            if place.kind != "quarantine":
                continue
            pairs = [(file, n) for file, own in place.positions.items() for n in own]
            wanted = (
                [file for file, _ in pairs], [n for _, n in pairs], place.batch_id, table.full_name,
            )  # fmt: skip
            found = connection.execute(_DELETE_REJECTS, wanted).fetchall()
            gone[place.batch_id]["quarantine"] += len(found)
            left_out = sum(waiting for (waiting,) in found)
            if left_out:
                fewer = (left_out, place.batch_id, table.full_name)
                connection.execute(_FEWER_REJECTS, fewer)
        return gone

    def _tell(
        self, connection: Connection, gone: dict[str | None, Counter[str]], changed: set[str]
    ) -> None:
        for place in erasures.places(connection, self.erasure.erasure_id):
            if place.kind in KINDS and place.state == "FOUND":
                erasures.mark_erased(connection, place, gone[place.batch_id][place.kind])
        for batch_id in sorted({each for each in gone if each is not None} | changed):
            # The trail vouches for a batch's details by a root over them, which are others now.
            ((root,),) = connection.execute(ROOT, (batch_id,)).fetchall()
            told: dict[str, object] = {**gone.get(batch_id, {}), "root": root}
            events.append(connection, self.event("batch.erased", "SUCCESS", batch_id, told))
        if None in gone:
            told = {"by_hand": gone[None]["rows"]}
            events.append(connection, self.event("erasure.rows", "SUCCESS", None, told))


def _digest_or_count(
    connection: Connection,
    rows: sql.Composable,
    values: Sequence[sql.Composable],
    where: sql.Composable,
) -> RowDigest:
    if values:
        return table_digest(connection, rows, values, where)
    ((count,),) = connection.execute(_COUNT.format(rows=rows, where=where)).fetchall()
    return RowDigest(count, 0, 0)
