"""What becomes of a table that is upserted by JSON lines of different columns, row by row.

To the levels of `support_oracle` this adds: a null that a record brings where none may be costs it
before its values are looked at; a record that passed level 1 is completed by the row that has its key,
or by the defaults, and is judged as what comes of that; what has no value then and needs one is out; and
a key is taken by another row than the one that is updated.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.engine.support_oracle import BY_POSTGRESQL, Verdict, _Judge, _Refused, read_value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.engine.support_oracle import Place, Reason, Row, Table


@dataclass(frozen=True)
class Upserted:
    """What is rejected, and what the table holds afterwards.

    Attributes:
        verdict: What is good, as it is stored, and what is not.
        rows: All rows of the table.
        inserted, updated, unchanged: How many rows of the batch did which.
    """

    verdict: Verdict
    rows: list[Row]
    inserted: int
    updated: int
    unchanged: int


@dataclass
class _UpsertJudge(_Judge):
    key: tuple[str, ...] = ()

    def key_of(self, row: Row) -> tuple[int | str | None, ...] | None:
        found = tuple(row[name] for name in self.key)
        return None if None in found else found

    def met(self, table: Table, row: Row) -> Row | None:
        """Give the row of the table that a row updates."""
        own = self.key_of(row)
        rows = self.existing[table.name]
        return next((old for old in rows if own is not None and self.key_of(old) == own), None)

    def read(self, table: Table, file_name: str, content: bytes) -> None:
        for number, line in enumerate(content.splitlines(keepends=True), 1):
            place = (table.name, file_name, number)
            self.raw[place] = line
            self._read_record(table, place, json.loads(line))

    def _read_record(self, table: Table, place: Place, record: dict[str, int | str | None]) -> None:
        row: Row = {}
        nulls: set[Reason] = set()
        reasons: set[Reason] = set()
        later: set[Reason] = set()
        for column in table.columns:
            name = column.name
            if name not in record and name not in self.key:
                continue
            value = record.get(name)
            if value is None and column.not_null:
                (reasons if name in self.key else nulls).add((name, "23502", None))
                continue
            try:
                row[name] = read_value(None if value is None else str(value).encode(), column.kind)
            except _Refused as refused:
                found = reasons if column.kind not in BY_POSTGRESQL else later
                found.add((name, str(refused), None))
        if nulls or reasons or later:
            self.rejected[place] = nulls or reasons or later
            return
        old = self.met(table, row)
        for column in table.columns:
            if column.name not in row:
                row[column.name] = column.default if old is None else old[column.name]
        missing: set[Reason] = {
            (column.name, "23502", None)
            for column in table.columns
            if column.not_null and row[column.name] is None
        }
        if missing:
            self.rejected[place] = missing
        else:
            self.alive[place] = row

    def reject_taken(self, table: Table) -> None:
        found: dict[Place, set[Reason]] = {}
        for place, row in self.of(table.name):
            others = [
                old
                for old in self.existing[table.name]
                if self.key_of(row) is None or self.key_of(old) != self.key_of(row)
            ]
            found[place] = {
                (None, "23505", key.name)
                for key in table.keys
                if key.columns != self.key
                and key.of(row) is not None
                and key.of(row) in [key.of(old) for old in others]
            }
        self.reject(found)


def upserted(
    table: Table, key: tuple[str, ...], existing: Sequence[Row], files: Mapping[str, bytes]
) -> Upserted:
    """Judge and apply a batch.

    Args:
        table: The table.
        key: Columns of the key by which rows are updated.
        existing: The rows that it has.
        files: The content of each file, by its name.
    """
    judge = _UpsertJudge({table.name: table}, {table.name: existing}, key=key)
    for file_name in sorted(files):
        judge.read(table, file_name, files[file_name])
    judge.check(table)
    judge.judge_keys([table.name])
    good = [row for _, row in judge.of(table.name)]
    met = {judge.key_of(row): judge.met(table, row) for row in good}
    rows = [row for row in existing if judge.key_of(row) not in met] + good
    matched = [(row, old) for row in good if (old := judge.met(table, row)) is not None]
    unchanged = sum(row == old for row, old in matched)
    verdict = Verdict(
        {table.name: good},
        {place: frozenset(why) for place, why in judge.rejected.items()},
        judge.raw,
    )
    return Upserted(verdict, rows, len(good) - len(matched), len(matched) - unchanged, unchanged)
