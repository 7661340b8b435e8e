"""What a report consists of: sections of figures and tables, without any layout."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Final, get_args

from batch_pipelines.engine.reports.page import Column, Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from batch_pipelines.engine.reports.page import Cell

LISTED: Final = 100
"""Lines of a table that lists single things; how many there are is always counted, too."""


@dataclass(frozen=True)
class Figure:
    """A number that matters.

    Attributes:
        name: What it is, as in `batches`; unique in its section.
        label: The same for people.
        value: The number; None where there is nothing it could be made of.
        unit: `%`, `s`, `bytes`; empty for a count.
    """

    name: str
    label: str
    value: int | float | None
    unit: str = ""


@dataclass(frozen=True)
class Table:
    """Lines of the same columns.

    Attributes:
        name: What it lists, as in `by_feed`; unique in its section.
        title: The same for people.
        columns: Its columns.
        rows: The lines.
        total: How many lines there are; more than `rows` where only some are listed.
        note: What a reader has to know of it.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    total: int
    note: str = ""


@dataclass(frozen=True)
class Content:
    """What a type of report found. The same ledger gives the same, to the last digit.

    Attributes:
        records: Rows of the ledger that it counts.
        figures: What matters most.
        tables: The rest.
    """

    records: int
    figures: tuple[Figure, ...]
    tables: tuple[Table, ...] = field(default=())

    @property
    def canonical(self) -> bytes:
        """Its bytes, of which digests are taken: JSON in one spelling."""
        text = json.dumps(asdict(self), default=str, sort_keys=True, separators=(",", ":"))
        return text.encode()

    @property
    def sha256(self) -> str:
        """The digest of its bytes, in hex digits."""
        return hashlib.sha256(self.canonical).hexdigest()


@dataclass(frozen=True)
class Section:
    """A type of report, done or failed.

    Attributes:
        type: Which type.
        title: The same for people.
        content: What it found; None where it failed.
        failure: Why it could not be made; None where it could.
        seconds: How long that took.
    """

    type: str
    title: str
    content: Content | None
    failure: str | None
    seconds: float


def listing(
    name: str,
    title: str,
    columns: Iterable[str],
    rows: Iterable[Sequence[Cell]],
    *,
    note: str = "",
    total: int | None = None,
) -> Table:
    """Make a table of the first `LISTED` of lines.

    Args:
        name: What it lists.
        title: The same for people.
        columns: Head of each column, and behind a bar of what kind its cells are, as in `batches|count`.
        rows: All lines, or the first of them.
        note: What a reader has to know of it.
        total: How many lines there are, where `rows` are not all.
    """
    found = [tuple(row) for row in rows]
    count = len(found) if total is None else total
    heads = tuple(_column(*each.split("|")) for each in columns)
    return Table(name, title, heads, (*found[:LISTED],), count, note)


def _column(name: str, kind: str = "text") -> Column:
    (known,) = [each for each in get_args(Kind) if each == kind]
    return Column(name, known)
