"""How the command line prints: tables for people, JSON for programs, errors on standard error."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import rich.box
import rich.console
import rich.markup
import rich.table
import typer

from batch_pipelines.engine.fidelity import not_exact

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from batch_pipelines.engine.fidelity import ColumnFidelity
    from batch_pipelines.engine.signatures import Change

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]

_WIDE = 200
# Changed columns that are listed; JSON has all of them.
_CHANGES = 50
_COLOURS = {
    "SUCCESS": "green",
    "PUBLISHED": "cyan",
    "IN_PROGRESS": "cyan",
    "DUPLICATE": "dim",
    "SUPERSEDED": "dim",
    "PARTIAL_SUCCESS": "yellow",
    "UNVERIFIED": "yellow",
    "FAILED": "red",
    "VALIDATION_FAILED": "red",
    "ROLLED_BACK": "magenta",
    "ARCHIVED": "blue",
}


def console() -> rich.console.Console:
    """Give the console of standard output; not made at import, so that tests can capture it."""
    # In a pipe or a log there is no width to fit into.
    width = None if sys.stdout.isatty() else _WIDE
    return rich.console.Console(width=width, highlight=False)


def print_json(value: object) -> None:
    """Print a value as JSON.

    Args:
        value: Plain values, dataclasses and times.
    """
    sys.stdout.write(json.dumps(value, default=_plain, indent=1) + "\n")


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under a title; states are coloured, numbers stand to the right.

    Args:
        title: Above the table.
        columns: Heads of the columns.
        rows: Their cells; None is shown as a dash.
    """
    table = rich.table.Table(
        title=title, title_justify="left", box=rich.box.SIMPLE_HEAD, pad_edge=False
    )
    cells = [[*row] for row in rows]
    for place, column in enumerate(columns):
        numeric = all(isinstance(row[place], int | float | None) for row in cells) and cells
        table.add_column(
            column, justify="right" if numeric else "left", overflow="fold", no_wrap=bool(numeric)
        )
    for row in cells:
        table.add_row(*(_cell(value) for value in row))
    console().print(table)


def say(text: str) -> None:
    """Print a line, as it is."""
    console().print(rich.markup.escape(text))


def complain(text: str) -> None:
    """Print an error to standard error."""
    rich.console.Console(stderr=True, soft_wrap=True, highlight=False).print(
        f"[red]Error:[/] {rich.markup.escape(text)}"
    )


def status(text: str) -> str:
    """Mark a state up with its colour."""
    return f"[{_COLOURS.get(text, 'default')}]{text}[/]"


def print_changes(title: str, changes: Sequence[Change]) -> None:
    """Print how the columns of a delivery differ from the version in force.

    Args:
        title: The table and the verdict.
        changes: What differs, by column.
    """
    if not changes:
        say(title)
        return
    print_table(
        title,
        ["column", "change", "before", "now", "verdict", "policy"],
        [[c.column, c.kind, c.before, c.after, c.verdict, c.policy] for c in changes[:_CHANGES]],
    )
    if len(changes) > _CHANGES:
        say(f"and {len(changes) - _CHANGES:,} more columns")


def print_fidelity(table: str, columns: Iterable[ColumnFidelity]) -> None:
    """Print which columns of a table do not keep what is sent exactly, and why.

    Args:
        table: The table.
        columns: Its columns.
    """
    found = [*not_exact(columns)]
    if found:
        print_table(
            f"{table}: columns that do not keep the very value that is sent",
            ["column", "is", "because"],
            [[each.column, each.kind, each.reason] for each in found],
        )


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.3f}"
    text = str(value)
    return status(text) if text in _COLOURS else rich.markup.escape(text)


def _plain(value: Any) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return str(value)


def reason_text(table: str, column: str | None, message: str, sqlstate: str) -> str:
    """Write why records of a table are set aside, as one line.

    Args:
        table: The table.
        column: The column, where one is to blame.
        message: What is wrong.
        sqlstate: PostgreSQL's code for it.
    """
    blamed = "" if column is None else f", column {column}"
    return f"{table}{blamed}: {message} (SQLSTATE {sqlstate})"
