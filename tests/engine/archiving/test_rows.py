"""Rows of a batch are put away whole: every value of every type, read back and held against tables."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import SecretStr

from batch_pipelines.engine.archiving.keys import new_key
from batch_pipelines.engine.archiving.rows.export import ExportedRows, export_rows
from batch_pipelines.engine.archiving.rows.live import live_rows
from batch_pipelines.engine.archiving.rows.reading import open_rows, rows_bag
from batch_pipelines.engine.errors import ArchiveError
from batch_pipelines.engine.failpoints import armed
from batch_pipelines.engine.feeds import Feed
from batch_pipelines.engine.ledger import archives

if TYPE_CHECKING:
    from collections.abc import Callable

    from batch_pipelines.engine.ledger.batches import Batch
    from tests.engine.conftest import MakeSite
    from tests.support_engine import Site

pytestmark = pytest.mark.versions

DDL = "CREATE TABLE t (id int PRIMARY KEY, note text, import_batch_id uuid)"
ROWS = "id,note\n" + "".join(f"{n},note {n}\n" for n in range(100))
EVERY_TYPE = """
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TABLE t (
    id int PRIMARY KEY, a smallint, b bigint, c numeric(12,2), d numeric, e real, f double precision,
    g boolean, h text, i varchar(9), j char(5), k date, l time, m timestamp, n timestamptz, o uuid,
    p bytea, q jsonb, r json, s int[], u mood, v positive, w interval, x numrange, y inet, z timetz,
    "Odd ""name"" " float8[], far date, forever timestamptz, nan numeric(5,1), noon time,
    doubled int GENERATED ALWAYS AS (id * 2) STORED, kept int GENERATED ALWAYS AS IDENTITY,
    import_batch_id uuid)
"""
# Values at the edges, and ones that Arrow or Python have no place for.
VALUES = r"""
UPDATE t SET a = -32768, b = 9223372036854775807, c = -1234567890.12, d = 1e40, e = 'NaN', f = '-0.0',
    g = true, h = E'tab\t"quote", ,\nline \u00e4\u4e16', i = '', j = 'ab', k = '0001-01-01',
    l = '23:59:59.999999', m = '9999-12-31 23:59:59.999999', n = '1969-12-31 23:59:59.999999Z',
    o = 'ffffffff-ffff-ffff-ffff-fffffffffffe', p = '\x00ff00', q = '{"b": 1.10, "a": null}',
    r = '{"b":  1, "b": 2}', s = '{1,NULL,3}', u = 'sad', v = 7, w = '1 mon -2 days 03:04:05.5',
    x = '[1.5,)', y = '10.0.0.1/24', z = '12:00:00.5+05:30', "Odd ""name"" " = '{0.1,NaN,1e-300}',
    far = 'infinity', forever = '-infinity', nan = 'NaN', noon = '24:00:00' WHERE id = 1;
UPDATE t SET far = '0044-03-15 BC', forever = '4000-01-01Z', nan = 1.5, noon = '12:00', e = 'Infinity',
    h = '', p = '', f = 0.1 WHERE id = 2;
"""


def export(site: Site, batch: Batch) -> ExportedRows:
    with site.work() as (connection, work):
        return export_rows(connection, site.settings, site.feed, batch, work.lease)


def stored(site: Site) -> list[tuple[object, ...]]:
    return site.sql("SELECT to_jsonb(t)::text FROM t ORDER BY id")


def recorded(site: Site, batch: Batch) -> int:
    kinds = [each.kind for each in archives.of_batch(site.connection, batch.batch_id)]
    return kinds.count("rows")


def test_every_value_is_put_away_and_plain_readers_read_it(site: MakeSite) -> None:
    """Given columns of any type, pandas, pyarrow and DuckDB read what PostgreSQL has."""
    here = site(EVERY_TYPE)
    batch = here.load({"a.csv": "id\n1\n2\n3\n"})
    here.sql(VALUES)
    exported = export(here, batch)

    record = exported.bag.record
    tool = [sys.executable, "-m", "bagit", "--validate", record.place]
    assert subprocess.run(tool, check=False, capture_output=True).returncode == 0
    path = Path(record.place) / "data/rows/public.t.parquet"
    said = json.loads((Path(record.place) / "data/tables.json").read_text())
    types = {column["name"]: column["type"] for column in said["tables"][0]["columns"]}
    assert types["c"] == "numeric(12,2)"
    assert types['Odd "name" '] == "double precision[]"
    assert types["doubled"] == "integer"

    plain = pq.read_table(path)
    assert plain.schema.field("s").metadata == {b"postgresql.type": b"integer[]"}
    first, second, third = plain.sort_by("id").to_pylist()
    assert {name for name, value in third.items() if value is not None} == {
        "id", "doubled", "kept", "import_batch_id",
    }  # fmt: skip
    texts = here.sql(
        "SELECT d::text, j::text, q::text, r::text, s::text, u::text, v::text, w::text, x::text,"
        " y::text, z::text, far::text, forever::text, nan::text, noon::text FROM t WHERE id = 1"
    )
    assert tuple(first[name] for name in "djqrsuvwxyz") == texts[0][:11]
    assert (first["far"], first["forever"], first["nan"], first["noon"]) == texts[0][11:]
    assert second["far"] == "0044-03-15 BC"
    ((same,),) = here.sql(
        "SELECT (a, b, c, g, h, i, k, l, m, n, o, p, doubled, kept) = (%s::smallint, %s::bigint,"
        " %s::numeric, %s, %s, %s, %s::date, %s::time, %s::timestamp, %s::timestamptz, %s::uuid,"
        " %s::bytea, %s::int, %s::int) FROM t WHERE id = 1",
        *(first[name] for name in [*"abcghiklmnop", "doubled", "kept"]),
    )
    assert same
    assert str(first["import_batch_id"]) == batch.batch_id
    assert str(first["e"]) == "nan"
    assert str(first["f"]) == "-0.0"
    frame = pd.read_parquet(path)
    assert frame.set_index("id").loc[1, "c"] == first["c"]
    with duckdb.connect() as duck:
        read = duck.sql(f"SELECT c, n, import_batch_id, h FROM '{path}' WHERE id = 1").fetchall()
    assert str(read[0][0]) == "-1234567890.12"
    assert str(read[0][2]) == batch.batch_id
    assert read[0][3] == first["h"]


def test_rows_are_put_away_once_and_read_again_whenever_asked(site18: MakeSite) -> None:
    site = site18(DDL)
    batch = site.load({"a.csv": ROWS})
    before = stored(site)
    first = export(site, batch)
    again = export(site, batch)
    assert (first.worked, again.worked) == (True, False)
    assert again.bag == dataclasses.replace(first.bag, record=again.bag.record)
    assert recorded(site, batch) == 1
    (table,) = first.bag.account.tables
    assert table.since.is_untouched
    assert table.digest.rows == 100
    with open_rows(site.connection, site.settings, batch.batch_id) as rows:
        read = pa.Table.from_batches(rows.batches(table))
    assert read.column("note").to_pylist() == [f"note {n}" for n in range(100)]
    assert stored(site) == before
    with site.connection.transaction():
        (live,) = live_rows(site.connection, batch.batch_id, first.bag.account.tables)
    assert live.is_same


@pytest.mark.parametrize(
    ("touch", "replaced", "same"),
    [
        ("UPDATE t SET note = 'by hand' WHERE id = 5", 0, False),
        ("DELETE FROM t WHERE id = 5", 0, False),
        ("INSERT INTO t SELECT 1000, 'more', import_batch_id FROM t WHERE id = 5", 0, False),
    ],
)
def test_rows_that_were_touched_are_put_away_as_they_are_and_said_to_be(
    site18: MakeSite, touch: str, replaced: int, *, same: bool
) -> None:
    site = site18(DDL)
    batch = site.load({"a.csv": ROWS})
    first = export(site, batch)
    site.sql(touch)
    with site.connection.transaction():
        (live,) = live_rows(site.connection, batch.batch_id, first.bag.account.tables)
    assert not live.is_same
    second = export(site, batch)
    assert second.bag.record.place == f"{first.bag.record.place}-2"
    (table,) = second.bag.account.tables
    assert (table.since.is_same, table.since.replaced) == (same, replaced)
    assert not table.since.is_untouched
    assert table.digest.rows == site.count("SELECT count(*) FROM t")
    assert rows_bag(site.connection, site.settings, batch.batch_id) == second.bag


def test_rows_that_a_later_batch_has_updated_are_its_own(site18: MakeSite) -> None:
    site = site18(DDL)
    site.feed = Feed.model_validate(
        site.feed.model_dump(exclude_unset=True)
        | {"tables": [{"table": "public.t", "write": "upsert", "key": ["id"]}]}
    )
    batch = site.load({"a.csv": ROWS}, "first")
    site.load({"a.csv": "id,note\n3,later\n4,later\n"}, "second")
    with site.work("first") as (connection, work):
        exported = export_rows(connection, site.settings, site.feed, batch, work.lease)
    (table,) = exported.bag.account.tables
    assert (table.digest.rows, table.since.replaced, table.since.is_same) == (98, 2, True)
    assert not table.since.is_untouched


@pytest.mark.parametrize("breaking", ["value", "row"])
def test_what_does_not_read_back_as_the_table_has_it_is_not_recorded(
    site18: MakeSite, breaking: str
) -> None:
    site = site18(DDL)
    batch = site.load({"a.csv": ROWS})

    def change(rows: pa.RecordBatch) -> pa.RecordBatch:
        if breaking == "row":
            return rows.slice(1)
        notes = rows.column("note").to_pylist()
        return rows.set_column(1, "note", pa.array([notes[1], notes[0], *notes[2:]]))

    with armed("rows.read", change), pytest.raises(ArchiveError, match="other rows"):
        export(site, batch)
    assert recorded(site, batch) == 0
    assert export(site, batch).worked


@pytest.mark.parametrize("point", ["rows.written", "rows.secured", "rows.sealed"])
def test_a_run_that_ends_anywhere_leaves_nothing_that_counts_and_the_next_one_ends_right(
    site18: MakeSite, point: str
) -> None:
    site = site18(DDL)
    batch = site.load({"a.csv": ROWS})

    def end(_: object) -> None:
        raise KeyboardInterrupt

    with armed(point, end), pytest.raises(KeyboardInterrupt):
        export(site, batch)
    assert recorded(site, batch) == 0
    assert export(site, batch).worked
    assert recorded(site, batch) == 1
    folder = Path(site.settings.archive_address) / batch.name
    assert sorted(each.name for each in folder.iterdir()) == [
        batch.batch_id, f"{batch.batch_id}.rows",
    ]  # fmt: skip


def test_encrypted_rows_show_nothing_and_open_with_the_key(site18: MakeSite) -> None:
    site = site18(DDL, archive={"encrypt": True})
    key = SecretStr(new_key())
    site.settings = site.settings.model_copy(update={"archive_key": key})
    batch = site.load({"a.csv": ROWS})
    exported = export(site, batch)
    place = Path(exported.bag.record.place)
    files = [path for path in place.rglob("*") if path.is_file()]
    assert "public.t.parquet.age" in {path.name for path in files}
    assert not any(b"note 5" in path.read_bytes() for path in files)
    with open_rows(site.connection, site.settings, batch.batch_id) as rows:
        rows.prove()


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("data/rows/public.t.parquet", _flip),
        ("data/tables.json", _flip),
        ("manifest-sha256.txt", _flip),
        ("data/rows/public.t.parquet", Path.unlink),
    ],
)
def test_a_damaged_bag_is_never_taken_for_a_whole_one(
    site18: MakeSite, file: str, damage: Callable[[Path], None]
) -> None:
    site = site18(DDL)
    batch = site.load({"a.csv": ROWS})
    exported = export(site, batch)
    damage(Path(exported.bag.record.place) / file)
    with (
        pytest.raises(ArchiveError),
        open_rows(site.connection, site.settings, batch.batch_id) as rows,
    ):
        rows.prove()
    # The rows are there still, and are put away anew.
    again = export(site, batch)
    assert again.worked
    assert again.bag.record.place != exported.bag.record.place


def test_a_batch_that_is_not_in_force_has_no_rows_to_put_away(site18: MakeSite) -> None:
    site = site18(DDL)
    batch = site.load({"a.csv": ROWS})
    site.load({"a.csv": ROWS + "200,more\n"})
    (old,) = [each for each in site.history() if each.batch_id == batch.batch_id]
    with pytest.raises(ArchiveError, match="SUPERSEDED"):
        export(site, old)
