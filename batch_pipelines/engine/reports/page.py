"""What a page of a report consists of, whatever it reports on: a verdict, what needs somebody, evidence.

Cells are plain values; how they are written for people `shown` says, and for programs `export`.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from batch_pipelines.engine.reports.charts import Picture

Cell = str | int | float | bool | Decimal | dt.datetime | dt.date | None
Level = Literal["good", "warn", "bad", "plain"]
Kind = Literal["text", "code", "count", "number", "percent", "time", "state"]
NUMERIC: frozenset[Kind] = frozenset({"count", "number", "percent"})


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        name: Its head, with the unit where there is one.
        kind: How its cells are written: `count` with separated thousands, `number` with three
            decimals, `percent` of 0 to 100, `time` in UTC, `code` letter by letter, `state` with a mark.
    """

    name: str
    kind: Kind = "text"


@dataclass(frozen=True, slots=True)
class Table:
    """A table of evidence.

    Attributes:
        name: Of its CSV file, without suffix; unique in a page.
        caption: What it shows, for people.
        columns: Its columns; the first one names the row.
        rows: Its rows, each as long as the columns.
        shown: So many rows are on the page, the others in JSON and CSV alone.
    """

    name: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    shown: int = 200

    @property
    def head(self) -> tuple[tuple[Cell, ...], ...]:
        """The rows that are on the page."""
        return self.rows[: self.shown]


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact by its name, as the head of a page has them."""

    name: str
    value: Cell
    kind: Kind = "text"


@dataclass(frozen=True, slots=True)
class Attention:
    """Something that somebody should look at.

    Attributes:
        level: `bad` where something is wrong, `warn` where something is left to do or unknown.
        text: What it is.
        command: What to type about it, if there is something.
    """

    level: Level
    text: str
    command: str | None = None


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page with a heading; one without tables and pictures says why in its text.

    Attributes:
        name: Its anchor: lower case, unique in a page.
        title: Its heading.
        text: Paragraphs before the evidence.
        tables: Its tables; those without rows are left out.
        pictures: Its pictures.
        commands: What to type to see more, or to check it.
        facts: What it comes to, by name; before its pictures.
    """

    name: str
    title: str
    text: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    pictures: tuple[Picture, ...] = ()
    commands: tuple[str, ...] = ()
    facts: tuple[Fact, ...] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """A report as people see it.

    Attributes:
        kind: What sort of report it is, as in `Batch report`.
        title: What it is about.
        level: Of the verdict.
        verdict: One sentence that says how it stands.
        facts: What identifies the matter.
        attention: What somebody should look at, the worst first.
        sections: The evidence.
        made_at: When the ledger was read.
        made_by: The program, with its version.
    """

    kind: str
    title: str
    level: Level
    verdict: str
    facts: tuple[Fact, ...]
    attention: tuple[Attention, ...]
    sections: tuple[Section, ...]
    made_at: dt.datetime
    made_by: str

    @property
    def tables(self) -> tuple[Table, ...]:
        """All tables, in the order of the page."""
        return tuple(table for section in self.sections for table in section.tables)
