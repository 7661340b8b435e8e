"""Isolating the rows that do not fit: staged, judged by queries, what is left found by halving.

Each row taken out becomes a reject with all its reasons and, read once more from its file, its raw
bytes.
"""

from __future__ import annotations

import functools
import itertools
import json
from array import array
from collections import defaultdict
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from psycopg import sql

from batch_pipelines.engine.errors import PublishError
from batch_pipelines.engine.rejects import Breach, Reject
from batch_pipelines.engine.writing.bisecting import bisect
from batch_pipelines.engine.writing.copying import file_and_record
from batch_pipelines.engine.writing.judging import UNIQUE, judge, note
from batch_pipelines.engine.writing.publishing import put
from batch_pipelines.engine.writing.staging import BREACHES, stage, take_out
from batch_pipelines.engine.writing.superseding import delete_batch, needs_diff
from batch_pipelines.engine.writing.waiting import bring_back

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from batch_pipelines.engine.catalog import TableInfo
    from batch_pipelines.engine.ledger.rejects import Rejects
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.writing.publication import Publication
    from batch_pipelines.engine.writing.staging import Staged

_REASONS = sql.SQL("""
COPY (SELECT place, json_agg(json_build_object('sqlstate', sqlstate, 'message', message,
             'column', "column", 'constraint', "constraint") ORDER BY sequence)::text
      FROM {breaches} WHERE source = {source} GROUP BY place ORDER BY place) TO STDOUT
""")
_FORGET = sql.SQL("TRUNCATE {breaches}")
_PLACES = sql.SQL("(SELECT unnest({places}::bigint[]) AS batch_pipelines_place) s")


@dataclass
class Isolation:
    """The isolation of one batch's bad rows.

    Attributes:
        connection: The publishing connection, in autocommit mode: it has the staged tables.
        publication: What is to be published.
        rejects: Takes in what does not fit.
        staged: The staged rows, as far as they fit.
    """

    connection: Connection
    publication: Publication
    rejects: Rejects
    staged: tuple[Staged, ...] = field(default=(), init=False)

    def stage(self) -> None:
        """Bring the batch's rows into temporary tables: from its files, or from where they waited."""
        replaced = self.publication.replaced(self.connection)
        extras = {}
        for source in self.publication.sources:
            name, looked_at = source.table.full_name, source.rules.columns
            if self.publication.upsert_key(source):
                looked_at |= replaced.get(name, frozenset()) | _judged_by(source.table)
            extras[name] = source.lacks(looked_at)
        if self.publication.step == "publish":
            self.staged = bring_back(self.connection, self.publication, self.rejects, extras)
            return
        proofs = [self.publication.proof(s, self.rejects) for s in self.publication.sources]
        self.staged = stage(self.connection, proofs, self.publication.told, extras)

    def judge(self) -> int:
        """Take out what queries find; return how many rows that were."""
        keys = {s.table.oid: self.publication.upsert_key(s) for s in self.publication.sources}
        replaced = self.publication.replaced(self.connection)
        found = judge(self.connection, self.staged, self.publication.superseded, keys, replaced)
        if found:
            self._collect()
        return found

    def bisect(self) -> int:
        """Take out what only trying finds; return how many rows that were."""
        found = 0
        for place, each in enumerate(self.staged):
            diff = self.publication.superseded is not None and needs_diff(each.source.table)
            if diff or self.publication.upsert_key(each.source):
                continue  # rows that others refer to, or that are updated, cannot be tried one by one
            search = bisect(
                self.connection, each, self.publication.batch.batch_id,
                functools.partial(self._prepare, place),
                self._is_enough, self._forward(place),
            )  # fmt: skip
            name = each.source.table.full_name
            self.publication.bisected[name] = (
                self.publication.bisected.get(name, 0) + search.statements
            )
            by_breach = defaultdict[Breach, list[int]](list)
            for row, breach in search.found.items():
                by_breach[breach].append(row)
            for breach, rows in by_breach.items():
                note(
                    self.connection, each, _PLACES.format(places=sql.Literal(rows)),
                    breach.sqlstate, breach.message,
                    column=breach.column, constraint=breach.constraint,
                )  # fmt: skip
            if search.found:
                found += take_out(self.connection, each)
                self._collect()
                # Children of what is out now have to go before they are tried themselves.
                found += self.judge()
        return found

    def _forward(self, place: int) -> frozenset[str]:
        """Name the foreign keys of a table to rows that are not there before it: in a circle."""
        later = {each.source.table.oid for each in self.staged[place:]}
        parents = self.staged[place].source.table.parents
        return frozenset(key.name for key in parents if key.parent_oid in later)

    def _is_enough(self, found: int) -> bool:
        total, thresholds = self.rejects.total + found, self.publication.work.feed.thresholds
        return thresholds.broken(total, self.publication.records) is not None

    def _prepare(self, place: int) -> None:
        """Do what publish does before it comes to a table."""
        old = self.publication.superseded
        replaced = self.publication.replaced(self.connection)
        for each in self.staged[:place]:
            put(self.connection, self.publication, each, replaced)
        if old is not None:
            delete_batch(self.connection, self.staged[place].source.table, old)

    def _collect(self) -> None:
        """Make rejects of what is noted, and leave it out of the proofs."""
        for each in self.staged:
            # Closed at once, whatever happens: the rows come over the connection that has to go on.
            with closing(self._reasons(each)) as noted:
                gone = {
                    file_name: self._quarantine(each, file_name, reasons)
                    for file_name, reasons in itertools.groupby(noted, lambda reason: reason[0])
                }
            each.proof.take_out({name: np.array(numbers) for name, numbers in gone.items()})
        self.connection.execute(_FORGET.format(breaches=BREACHES))

    def _quarantine(
        self, staged: Staged, file_name: str, reasons: Iterable[tuple[str, int, tuple[Breach, ...]]]
    ) -> array[int]:
        """Make rejects of one file's records; return their numbers."""
        (file,) = (each for each in staged.source.files if each.file_name == file_name)
        reasons, ahead = itertools.tee(reasons)
        records = (record for _, record, _ in ahead)
        raw = staged.source.raw(file, records)
        numbers = array("q")
        table = self.publication.work.feed.table_named(staged.source.table.full_name)
        for (_, record, breaches), (line, offset, content) in zip(reasons, raw, strict=True):
            reject = Reject(file_name, record, line, offset, content, breaches)
            taken = {breach.sqlstate for breach in breaches} == {UNIQUE}
            if taken and table.conflict == "fail":
                message = (
                    f"{self.publication.batch.name}: {reject}; the feed says `conflict: fail`, nothing "
                    "was written."
                )
                raise PublishError(message)
            self.rejects.add(table.table, [reject], skipped=taken and table.conflict == "skip")
            numbers.append(record)
        return numbers

    def _reasons(self, staged: Staged) -> Generator[tuple[str, int, tuple[Breach, ...]]]:
        query = _REASONS.format(breaches=BREACHES, source=sql.Literal(staged.number))
        with self.connection.cursor() as cursor, cursor.copy(query) as copy:
            copy.set_types(["int8", "text"])
            for place, reasons in copy.rows():
                number, record = file_and_record(place)
                breaches = tuple(Breach(**reason) for reason in json.loads(reasons))
                yield staged.source.files[number].file_name, record, breaches


def _judged_by(table: TableInfo) -> frozenset[str]:
    """Name the columns that constraints may look at: their defaults may break them."""
    told = [expression for _, expression in table.checks]
    for index in table.unique_indexes:
        told += [*index.parts, index.predicate or ""]
    keys = itertools.chain.from_iterable(key.child_columns for key in table.parents)
    named = (column.name for column in table.columns if any(column.name in text for text in told))
    return frozenset({*keys, *named})
