"""Which records of a batch are good, and why the others are not: the rule, row by row in plain Python.

A record is judged on levels, on one only if it passed those before, and on each level every reason is
noted.

0. The record itself: its fields, its quotes.
1. Its values: type, range, length, encoding; and what may not be null. First those of types that we
   read ourselves, and null in any column; then those of types that PostgreSQL converts from text.
2. CHECK constraints: broken, or raising an error. (Here and below, rules of the feed are constraints.)
3. Foreign keys, to a fixpoint: a child whose parent is rejected is rejected. A row that refers to its
   own table may refer to a later row; rows in a circle hold each other.
4. What must be unique: first against the table, then within the batch: the first valid record in source
   order wins a key, and one that loses a key does not claim its others. In a table that refers to itself
   (or in a circle) a winner may have lost its parent to the contest: it is rejected by level 3, and the
   contest is held again without it, among all that are not rejected.
5. Triggers and exclusion constraints, in source order; accepted rows stay. After each table whoever
   refers to a row that was rejected is rejected by level 3; contests are not held again.

Tables are judged parents first: levels 0 to 2 for all, then 3 and 4 table by table (those in a circle
together), then 5. Nothing of this is the program's, and nothing is SQL; it need not be fast.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from tests.engine.reading.oracle import records, value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Row: TypeAlias = dict[str, "int | str | None"]
Reason: TypeAlias = "tuple[str | None, str, str | None]"
"""Column, SQLSTATE, constraint."""
Place: TypeAlias = tuple[str, str, int]
"""Table, file, number of the record."""


@dataclass(frozen=True)
class Column:
    """A column: its name, its type as SQL writes it, whether it refuses nulls, and its default."""

    name: str
    kind: str
    not_null: bool = False
    default: int | str | None = None


@dataclass(frozen=True)
class Key:
    """Something unique.

    Attributes:
        name: Of the constraint or index.
        columns: Its columns.
        ddl: SQL that adds it to table {t}.
        nulls_equal: Whether two nulls are equal.
        covers: Says of which rows it is about.
        lower: Whether upper and lower case are the same.
        rule: What the feed says instead of that SQL, where it is a rule.
    """

    name: str
    columns: tuple[str, ...]
    ddl: str
    nulls_equal: bool = False
    covers: Callable[[Row], bool] = lambda _: True
    lower: bool = False
    rule: Mapping[str, object] | None = None

    def of(self, row: Row) -> tuple[int | str | None, ...] | None:
        """Give a row's key, or None where it has none that another could have too."""
        found = tuple(row[name] for name in self.columns)
        if not self.covers(row) or (None in found and not self.nulls_equal):
            return None
        return tuple(v.lower() if self.lower and isinstance(v, str) else v for v in found)


@dataclass(frozen=True)
class Check:
    """A CHECK constraint: its name, its SQL, and the same in Python, which may divide by zero.

    Or a rule, with what the feed says instead of SQL.
    """

    name: str
    expression: str
    holds: Callable[[Row], bool | None]
    rule: Mapping[str, object] | None = None


@dataclass(frozen=True)
class Foreign:
    """A foreign key: its name, columns, the parent's name and columns; what else SQL says.

    Or a rule, with what the feed says instead of SQL.
    """

    name: str
    columns: tuple[str, ...]
    parent: str
    parent_columns: tuple[str, ...]
    suffix: str = ""
    rule: Mapping[str, object] | None = None


@dataclass(frozen=True)
class Exclusion:
    """An exclusion constraint: name, SQL, and what of a row excludes what of another one.

    `clash` raises ValueError where PostgreSQL cannot compute it for the first row.
    """

    name: str
    ddl: str
    clash: Callable[[Row, Row], bool]


@dataclass(frozen=True)
class Table:
    """A table and all its rules; a trigger refuses rows where b is 3."""

    name: str
    columns: tuple[Column, ...]
    keys: tuple[Key, ...]
    checks: tuple[Check, ...] = ()
    foreign: tuple[Foreign, ...] = ()
    trigger: bool = False
    exclusion: Exclusion | None = None

    @property
    def rules(self) -> list[dict[str, object]]:
        """The rules that its feed has for it."""
        everything: list[Check | Key | Foreign] = [*self.checks, *self.keys, *self.foreign]
        return [{"name": each.name, **each.rule} for each in everything if each.rule is not None]


# What PostgreSQL converts from text.
BY_POSTGRESQL = frozenset({"character(3)", "jsonb", "tiny", "never_null"})
_INT = range(-(2**31), 2**31)
_TINY = 3


class _Refused(Exception):  # noqa: N818 - it is a verdict
    """A value is not of its type; the SQLSTATE is the argument."""


def read_value(text: bytes | None, kind: str) -> int | str | None:
    """Read a value of a type as PostgreSQL holds it; raises with the SQLSTATE where it is none."""
    if text is None:
        if kind == "never_null":
            raise _Refused("23514")
        return None
    if b"\0" in text or not _is_utf8(text):
        raise _Refused("22021")
    written = text.decode()
    if kind in {"integer", "tiny", "never_null"}:
        return _integer(written, _TINY if kind == "tiny" else None)
    if kind == "jsonb":
        return _jsonb(written)
    if kind == "character(3)":
        written = written.rstrip(" ")
    if kind in {"character(3)", "character varying(3)"} and len(written) > 3:
        raise _Refused("22001")
    return written


def _integer(written: str, most: int | None) -> int:
    bare = written.strip(" \t")
    if not bare.removeprefix("-").isdecimal() or not bare.isascii():
        raise _Refused("22P02")
    if int(bare) not in _INT:
        raise _Refused("22003")
    if most is not None and int(bare) > most:
        raise _Refused("23514")
    return int(bare)


def _jsonb(written: str) -> str:
    try:
        found = json.loads(written)
    except ValueError:
        raise _Refused("22P02") from None
    if "\\u0000" in written:
        raise _Refused("22P05")
    return json.dumps(found, ensure_ascii=False)


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


@dataclass(frozen=True)
class Verdict:
    """What is good and what is not.

    Attributes:
        good: The rows of each table.
        rejected: Every reason of each rejected record.
        raw: The bytes of each record.
    """

    good: dict[str, list[Row]]
    rejected: dict[Place, frozenset[Reason]]
    raw: dict[Place, bytes]


@dataclass
class _Judge:
    tables: dict[str, Table]
    existing: Mapping[str, Sequence[Row]]
    alive: dict[Place, Row] = field(default_factory=dict)
    rejected: dict[Place, set[Reason]] = field(default_factory=dict)
    raw: dict[Place, bytes] = field(default_factory=dict)

    def of(self, table: str) -> list[tuple[Place, Row]]:
        """Rows of a table that are not rejected, in source order."""
        return [(place, row) for place, row in self.alive.items() if place[0] == table]

    def reject(self, reasons: Mapping[Place, set[Reason]]) -> bool:
        """Reject those that have reasons; say whether there were any."""
        found = {place: why for place, why in reasons.items() if why}
        for place, why in found.items():
            self.rejected[place] = why
            self.alive.pop(place, None)
        return bool(found)

    # Levels 0 and 1

    def read(self, table: Table, file_name: str, content: bytes) -> None:
        header, *others = records(content)
        assert header.fields is not None
        names = [name.decode() for name in header.fields]
        kinds = {column.name: column for column in table.columns}
        for number, record in enumerate(others, 1):
            place = (table.name, file_name, number)
            self.raw[place] = content[record.start : record.end]
            if record.fields is None or len(record.fields) != len(names):
                self.rejected[place] = {(None, "22P04", None)}
                continue
            row: Row = {}
            reasons: set[Reason] = set()
            later: set[Reason] = set()
            for name, written in zip(names, record.fields, strict=True):
                column, text = kinds[name], value(written)
                if column.not_null and text is None:
                    reasons.add((name, "23502", None))
                    continue
                try:
                    row[name] = read_value(text, column.kind)
                except _Refused as refused:
                    state = str(refused)
                    by_us = column.kind not in BY_POSTGRESQL or state == "22021"
                    (reasons if by_us else later).add((name, state, None))
            if reasons or later:
                self.rejected[place] = reasons or later
            else:
                self.alive[place] = row

    # Level 2

    def check(self, table: Table) -> None:
        found: dict[Place, set[Reason]] = {}
        for place, row in self.of(table.name):
            found[place] = set()
            for check in table.checks:
                try:
                    if check.holds(row) is False:
                        found[place].add((None, "23514", check.name))
                except ZeroDivisionError:
                    found[place].add((None, "22012", check.name))
        self.reject(found)

    # Level 3

    def orphans(self, among: Sequence[Place]) -> dict[Place, set[Reason]]:
        """Say who among some rows refers to nobody among them or what else there is."""
        found: dict[Place, set[Reason]] = {}
        contested = {place[0] for place in among}
        for place in among:
            found[place] = set()
            for key in self.tables[place[0]].foreign:
                wanted = tuple(self.alive[place][name] for name in key.columns)
                if None in wanted:
                    continue
                parents = [*self.existing[key.parent]]
                parents += [
                    row
                    for other, row in self.of(key.parent)
                    if key.parent not in contested or other in among
                ]
                if all(tuple(p[n] for n in key.parent_columns) != wanted for p in parents):
                    column = key.columns[0] if len(key.columns) == 1 else None
                    found[place].add((column, "23503", key.name))
        return found

    def reject_orphans(self, names: Sequence[str]) -> None:
        """Reject who has no parent, until everybody has."""
        while self.reject(self.orphans([p for name in names for p, _ in self.of(name)])):
            pass

    # Level 4

    def reject_taken(self, table: Table) -> None:
        found: dict[Place, set[Reason]] = {}
        for place, row in self.of(table.name):
            found[place] = {
                (None, "23505", key.name)
                for key in table.keys
                if key.of(row) is not None
                and key.of(row) in [key.of(old) for old in self.existing[table.name]]
            }
        self.reject(found)

    def contest(self, table: Table) -> dict[Place, set[Reason]]:
        """Say of each row which keys it loses."""
        claimed: set[tuple[str, object]] = set()
        found: dict[Place, set[Reason]] = {}
        for place, row in self.of(table.name):
            own = {(key.name, key.of(row)) for key in table.keys if key.of(row) is not None}
            found[place] = {(None, "23505", name) for name, _ in own & claimed}
            if not found[place]:
                claimed |= own
        return found

    def judge_keys(self, group: Sequence[str]) -> None:
        """Levels 3 and 4 of one table, or of some in a circle."""
        self.reject_orphans(group)
        for name in group:
            self.reject_taken(self.tables[name])
        while True:
            self.reject_orphans(group)
            lost: dict[Place, set[Reason]] = {}
            for name in group:
                lost |= self.contest(self.tables[name])
            # A child's parent may have lost, where both are judged together.
            winners = [place for place, why in lost.items() if not why]
            if not self.reject(self.orphans(winners) if winners else {}):
                self.reject(lost)
                return

    # Level 5

    def try_out(self, table: Table) -> None:
        accepted = [*self.existing[table.name]]
        found: dict[Place, set[Reason]] = {}
        for place, row in self.of(table.name):
            found[place] = set()
            if table.trigger and row["b"] == 3:
                found[place].add((None, "P0001", None))
                continue
            if table.exclusion is not None:
                clash = table.exclusion.clash
                try:
                    clash(row, row)
                except ValueError:
                    found[place].add((None, "22000", None))
                    continue
                if any(clash(row, other) for other in accepted):
                    found[place].add((None, "23P01", table.exclusion.name))
                    continue
            accepted.append(row)
        self.reject(found)


def judged(
    groups: Sequence[Sequence[Table]],
    existing: Mapping[str, Sequence[Row]],
    files: Mapping[str, Mapping[str, bytes]],
) -> Verdict:
    """Judge a batch.

    Args:
        groups: The tables, parents first; those in a circle together.
        existing: The rows that each table has.
        files: The content of each file, by table and name.
    """
    tables = {table.name: table for group in groups for table in group}
    judge = _Judge(tables, existing)
    for name, table in tables.items():
        for file_name in sorted(files[name]):
            judge.read(table, file_name, files[name][file_name])
        judge.check(table)
    for group in groups:
        judge.judge_keys([table.name for table in group])
    for table in tables.values():
        judge.try_out(table)
        judge.reject_orphans([*tables])
    return Verdict(
        {name: [row for _, row in judge.of(name)] for name in tables},
        {place: frozenset(why) for place, why in judge.rejected.items()},
        judge.raw,
    )
