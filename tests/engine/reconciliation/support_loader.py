"""A loader that is none of ours: plain INSERTs, its own batch column, its own list of files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from batch_pipelines.engine.reconciliation.reconcile import Reconciler

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from batch_pipelines.engine.ledger.proofs import RowReport, TableValidation
    from batch_pipelines.engine.reconciliation.reconcile import Reconciliation
    from tests.support_engine import Site

DDL = """
CREATE TABLE public.t (
    id integer NOT NULL, name text, amount numeric(12, 2), ratio numeric, seen timestamptz,
    tags jsonb, loaded_by text NOT NULL, loaded_at timestamptz NOT NULL DEFAULT now());
CREATE INDEX ON public.t (loaded_by);
"""
HEAD = "id,name,amount,ratio,seen,tags"
INSERT = """
INSERT INTO public.t (id, name, amount, ratio, seen, tags, loaded_by)
VALUES (%s::integer, %s, %s::numeric, %s::numeric, %s::timestamptz, %s::jsonb, %s)
"""
FEED: dict[str, object] = {
    "feed": "orders",
    "source": {"path": "landing/{batch}/*.csv"},
    "tables": [
        {"table": "public.t", "write": "none", "batch_column": "loaded_by", "key": ["id"]},
    ],
}
Row = tuple[str | None, ...]


def row(number: int) -> Row:
    """A row of the source, as text; some values are null."""
    return (
        str(number), None if number % 7 == 0 else f"name, {number}", f"{number % 50}.{number % 100:02}",
        f"{number}.50", "2024-05-01 10:00:00+02", f'{{"n": {number}}}',
    )  # fmt: skip


def csv_of(rows: Sequence[Row]) -> str:
    """Write rows as CSV."""
    quoted = (
        ["" if value is None else '"' + value.replace('"', '""') + '"' for value in each]
        for each in rows
    )
    return HEAD + "\n" + "".join(",".join(each) + "\n" for each in quoted)


def insert(site: Site, batch: str, rows: Sequence[Row]) -> None:
    """Load rows as the other system does."""
    with site.connection.cursor() as cursor:
        cursor.executemany(INSERT, [(*each, batch) for each in rows])


def reconcile(site: Site, batch: str | None = None, *, force: bool = False) -> list[Reconciliation]:
    """Reconcile, over a connection as the program's."""
    reconciler = Reconciler(site.database, site.settings, site.feed, "a test")
    with site.database.connect("reconcile") as connection:
        return [*reconciler.run(connection, batch, force=force)]


def by_batch(found: Sequence[Reconciliation]) -> Mapping[str, Reconciliation]:
    """What was found, by the batch."""
    return {each.batches[0]: each for each in found}


def table_of(found: Reconciliation) -> TableValidation:
    """What was found in the only table."""
    (table,) = found.tables
    assert table.found is not None, table.log.exception
    return table.found


@dataclass(frozen=True)
class Named:
    """Rows that differ, by their ids: what kind, and in which columns."""

    missing: list[str]
    extra: list[str]
    changed: dict[str, list[str] | None]


def named(rows: RowReport | None) -> Named:
    """Tell rows that differ by their ids."""
    if rows is None:
        return Named([], [], {})
    keys = [(each, (each.key or {"id": str(each.record)})["id"]) for each in rows.details]
    return Named(
        sorted(key for each, key in keys if each.kind == "missing"),
        sorted(key for each, key in keys if each.kind in {"added", "duplicated"}),
        {key: each.columns for each, key in keys if each.kind == "changed"},
    )
