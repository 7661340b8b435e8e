"""The plan: where how much of a person is, and what stands in the way. It changes nothing.

All bags of all batches that filled the table are opened and read: the plan takes as long as that.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from psycopg import sql

from batch_pipelines.engine.catalog import STAMP
from batch_pipelines.engine.erasure.copies import Found, Search
from batch_pipelines.engine.erasure.keys import PersonKeys
from batch_pipelines.engine.erasure.searching import is_in_raw
from batch_pipelines.engine.errors import ArchiveError
from batch_pipelines.engine.ledger import archives, batches, rejects, values
from batch_pipelines.engine.ledger.erasures import Place
from batch_pipelines.engine.retention import holds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from batch_pipelines.engine.erasure.subject import Subject
    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.ledger.archives import ArchiveRecord
    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.ledger.erasures import Kind
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.settings import Settings

UNSETTLED: Final = frozenset({"IN_PROGRESS", "PUBLISHED", "VALIDATION_FAILED"})
"""States of batches that work with their staged copies still."""
_BATCHES: Final = """
SELECT h.batch_id::text FROM batch_audit.import_history AS h
WHERE h.status <> 'DUPLICATE' AND (
    EXISTS (SELECT FROM batch_audit.batch_table AS t
            WHERE t.batch_id = h.batch_id AND t.target_table = %(table)s)
    OR EXISTS (SELECT FROM batch_audit.import_file AS f
               WHERE f.batch_id = h.batch_id AND f.target_table IN (%(table)s, '*'))
    OR EXISTS (SELECT FROM batch_audit.import_reject AS r
               WHERE r.batch_id = h.batch_id AND r.target_table = %(table)s))
ORDER BY h.started_at, h.batch_id
"""
_ROWS: Final = sql.SQL("""
SELECT x.{stamp}::text, count(*) FROM {table} AS x WHERE {mine} GROUP BY 1 ORDER BY 1
""")
_KEPT: Final = sql.SQL("""
SELECT x.batch_id::text, count(*) FROM {kept} AS x WHERE x.target_table = {name} AND {mine}
GROUP BY 1 ORDER BY 1
""")
_REFERRING: Final = sql.SQL("""
SELECT count(*) FROM {child} AS c WHERE EXISTS (SELECT FROM {table} AS x WHERE {mine} AND {same})
AND NOT {itself}
""")
_KEPT_IN: Final[Mapping[Kind, str]] = {
    "before_images": "row_before_image", "superseded_rows": "superseded_row",
}  # fmt: skip
_BAGS: Final[Mapping[str, Kind]] = {"bag": "bag", "rows": "rows_bag", "records": "records_bag"}
_REJECTS: Final = """
SELECT file_name, record_number FROM batch_audit.import_reject
WHERE batch_id = %s AND target_table = %s
"""


@dataclass(frozen=True)
class Plan:
    """Where how much of a person is.

    Attributes:
        places: Where records were found; batches in the order in which they began.
        obstacles: What stands in the way; with nothing it can be done.
        notes: What somebody should know.
        keys: The primary keys of their rows; never printed.
    """

    places: tuple[Place, ...]
    obstacles: tuple[str, ...]
    notes: tuple[str, ...]
    keys: PersonKeys

    @property
    def is_empty(self) -> bool:
        """Whether nothing of the person was found."""
        return not self.places


@dataclass(frozen=True)
class Planner:
    """Looks where a person is.

    Attributes:
        settings: Hold the keys, and say where bags and staged copies stand.
        feeds: The feeds by name.
        subject: The person.
        requested_by: Who looks: where values of rejects have to be looked at, it is on record.
        drop_sources: Whether files go as a whole out of which single records cannot be cut.
    """

    settings: Settings
    feeds: Mapping[str, Feed]
    subject: Subject
    requested_by: str
    drop_sources: bool = False

    def plan(self, connection: Connection) -> Plan:
        """Look everywhere.

        Args:
            connection: A connection in autocommit mode.

        Returns:
            What was found.
        """
        obstacles, notes = list[str](), list[str]()
        with connection.transaction():
            self.subject.bind(connection)
            keys = PersonKeys.of(connection, self.subject)
            places = [*self._live(connection)]
            obstacles += self.referring(connection)
        asked = {"table": self.subject.table.full_name}
        found = [
            batches.by_id(connection, batch_id)
            for (batch_id,) in connection.execute(_BATCHES, asked).fetchall()
        ]
        put_away = []
        for batch in found:
            # First those that know rows which are nowhere else, for their keys.
            more, keys = self._rows_bags(connection, batch, keys, obstacles)
            put_away += more
        for batch in found:
            put_away += self._of_batch(connection, batch, keys, obstacles, notes)
        places += put_away
        for batch_id in {place.batch_id: None for place in places if place.batch_id is not None}:
            batch = batches.by_id(connection, batch_id)
            obstacles += held(connection, batch)
            if batch.status in UNSETTLED:
                obstacles.append(
                    f"batch {batch_id} ({batch.name}) is {batch.status}, and has the person: have it "
                    "validated, roll it back or cancel it first"
                )
        if any(place.batch_id is None for place in places):
            obstacles += held(connection, None)
        return Plan(tuple(places), tuple(obstacles), tuple(notes), keys)

    def referring(self, connection: Connection) -> Iterator[str]:
        """Say which rows refer to the person's; in a transaction that the subject is bound to."""
        table = self.subject.table
        for key in table.children:
            same = sql.SQL(" AND ").join(
                sql.SQL("c.{} = x.{}").format(sql.Identifier(child), sql.Identifier(parent))
                for child, parent in zip(key.child_columns, key.parent_columns, strict=True)
            )
            itself = self.subject.row("c") if key.child_oid == table.oid else sql.SQL("false")
            query = _REFERRING.format(
                child=sql.Identifier(*key.child), table=table.identifier, same=same, itself=itself,
                mine=self.subject.row("x"),
            )  # fmt: skip
            ((count,),) = connection.execute(query).fetchall()
            if count:
                child = ".".join(key.child)
                yield (
                    f"{count:,} rows of {child} refer to the person's rows ({key.name}, "
                    f"{', '.join(key.child_columns)}): erase those first, batch-pipelines erase "
                    f"FEED/{child} --key ..."
                )

    def _live(self, connection: Connection) -> Iterator[Place]:
        table = self.subject.table
        query = _ROWS.format(
            stamp=sql.Identifier(STAMP), table=table.identifier, mine=self.subject.row("x")
        )
        for batch_id, count in connection.execute(query).fetchall():
            yield Place(0, "rows", batch_id, None, count, {})
        for kind, kept in _KEPT_IN.items():
            query = _KEPT.format(
                kept=sql.Identifier("batch_audit", kept), name=sql.Literal(table.full_name),
                mine=self.subject.image("x"),
            )  # fmt: skip
            for batch_id, count in connection.execute(query).fetchall():
                yield Place(0, kind, batch_id, None, count, {})

    def _rows_bags(
        self, connection: Connection, batch: Batch, keys: PersonKeys, obstacles: list[str]
    ) -> tuple[list[Place], PersonKeys]:
        places = list[Place]()
        feed = self.feeds.get(batch.feed)
        if feed is None:
            return [], keys
        search = Search(connection, self.settings, feed, self.subject, keys)
        more = set[tuple[str, ...]]()

        def rows(record: ArchiveRecord) -> Found:
            found, own = search.rows(record)
            more.update(own)
            return found

        records = archives.of_batch(connection, batch.batch_id)
        for record, found in self._searched(records, "rows", rows, obstacles):
            places += _place_of(record, found)
        return places, keys.with_more(more)

    def _of_batch(
        self,
        connection: Connection,
        batch: Batch,
        keys: PersonKeys,
        obstacles: list[str],
        notes: list[str],
    ) -> Iterator[Place]:
        feed = self.feeds.get(batch.feed)
        if feed is None:
            obstacles.append(
                f"the file of feed {batch.feed} is gone, so the bags of {batch.name} "
                f"({batch.batch_id}) cannot be searched: put it back into {self.settings.feeds}"
            )
            return
        search = Search(connection, self.settings, feed, self.subject, keys)
        delivered = Found()
        records = archives.of_batch(connection, batch.batch_id)
        bags = list[Place]()
        for record, found in self._searched(records, "bag", search.bag, obstacles):
            self._judge(record.place, found, obstacles, notes)
            bags += _place_of(record, found)
            _merge(delivered, found)
        staged = search.staged(batch.batch_id)
        if staged.records:
            obstacles.append(
                f"staged copies of {batch.name} ({batch.batch_id}) have the person: have it archived "
                f"(batch-pipelines import {batch.feed} --batch {batch.partition_key}) or roll it back"
            )
        _merge(delivered, staged)
        yield from self._quarantine(connection, batch, delivered)
        yield from bags
        lines = partial(search.records, delivered=delivered.positions)
        for record, found in self._searched(records, "records", lines, obstacles):
            yield from _place_of(record, found)

    @staticmethod
    def _searched(
        records: Sequence[ArchiveRecord],
        kind: str,
        search: Callable[[ArchiveRecord], Found],
        obstacles: list[str],
    ) -> Iterator[tuple[ArchiveRecord, Found]]:
        """Search the bags of a kind; one that cannot be searched is in the way."""
        for record in records:
            if record.kind == kind:
                try:
                    yield record, search(record)
                except (ArchiveError, OSError) as error:
                    obstacles.append(f"{record.place} cannot be searched: {error}")

    def _quarantine(
        self, connection: Connection, batch: Batch, delivered: Found
    ) -> Iterator[Place]:
        """Find rejects: by their place in what was delivered, or by their bytes where that is gone."""
        own = defaultdict[str, list[int]](list)
        unknown = False
        asked = (batch.batch_id, self.subject.table.full_name)
        for name, number in connection.execute(_REJECTS, asked).fetchall():
            known = delivered.positions.get(name, [])
            if number in known:
                own[name].append(number)
            elif name not in delivered.searched:
                unknown = True
        if unknown:
            with values.opened(connection, batch.batch_id, "erase", self.requested_by):
                for rows in rejects.stream(connection, batch.batch_id):
                    for row in rows.to_pylist():
                        name, number = row["file_name"], row["record_number"]
                        if (
                            row["target_table"] == self.subject.table.full_name
                            and name not in delivered.searched
                            and number not in own[name]
                            and is_in_raw(self.subject, row["raw"])
                        ):
                            own[name].append(number)
        positions = {name: sorted(numbers) for name, numbers in own.items() if numbers}
        if positions:
            count = sum(map(len, positions.values()))
            yield Place(0, "quarantine", batch.batch_id, None, count, {**positions})

    def _judge(self, place: str, found: Found, obstacles: list[str], notes: list[str]) -> None:
        for name, why in found.whole.items():
            if self.drop_sources:
                notes.append(f"{place}: {name} goes as a whole ({why})")
            else:
                obstacles.append(
                    f"{place}: single records cannot be cut out of {name} ({why}). With --drop-sources "
                    "the whole file leaves the bag, and the batch cannot be imported again from it"
                )


def held(connection: Connection, batch: Batch | None) -> Iterator[str]:
    """Say which legal holds are over a batch, or, for rows typed in by hand, over everything."""
    if batch is not None:
        for hold in holds.over(connection, batch.batch_id):
            yield f"{hold} is over {batch.name} ({batch.batch_id})"
        return
    for hold in holds.listed(connection):
        if hold.batch_id is None and hold.feed is None:
            yield f"{hold} is over rows that were typed in by hand, too"


def _merge(into: Found, found: Found) -> None:
    into.searched |= found.searched
    for name, numbers in found.positions.items():
        into.add(name, numbers)


def _place_of(record: ArchiveRecord, found: Found) -> Iterator[Place]:
    """Say of a bag what was found in it, if anything was."""
    kind = _BAGS[record.kind]
    if found.records:
        yield Place(
            0,
            kind,
            record.batch_id,
            record.place,
            found.records,
            found.positions,
            tuple(found.whole),
        )
