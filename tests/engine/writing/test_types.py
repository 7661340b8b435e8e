"""Every type arrives as PostgreSQL itself would have read it, from CSV and from Parquet."""

from __future__ import annotations

import csv
import datetime as dt
import io
import uuid
from decimal import Decimal
from itertools import zip_longest
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from batch_pipelines.engine.ledger import proofs
from tests.support_rejects import Bad, check_bad_records

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.engine.conftest import MakeSite
    from tests.support_engine import Site

pytestmark = pytest.mark.versions

ID = "12345678-1234-5678-9abc-def012345678"
# What may stand in a CSV, by type; every way to write it that we take.
WRITTEN: dict[str, Sequence[str]] = {
    "boolean": ["t", "true", "TRUE", "y", "yes", "on", "On", "1", "f", "false", "n", "no", "off", "0"],
    "smallint": ["-32768", "0", "32767"],
    "integer": ["-2147483648", "007", "-0", " 5", "\t5 ", "2147483647"],
    "bigint": ["-9223372036854775808", "9223372036854775807"],
    "real": ["0.1", "-1e38", "0.123456789", "16777217", "NaN", "-Infinity", "3.4e-45"],
    "double precision": ["0.1", ".5", "1e5", "-0", "-1E-5", "5e-324", "1.7976931348623157e308", "inf"],
    "numeric(10,2)": ["12.5", "-12.500", "1e3", " 5.", "+.5", "99999999.99", "-0"],
    "numeric(38,37)": ["1.5", "-9.9999999999999999999999999999999999999"],
    "numeric(38,0)": ["9" * 38, "-1"],
    "text": ["a", "é中😀", " ", 'quotes "', "two\r\nlines", "comma,", "\\x", "NULL", "0x10", "\ufeff"],
    "varchar(3)": ["abc", "é中😀", "  "],
    "bytea": ["\\x", "\\x00", "\\x00fFAb"],
    "date": ["2013-01-31", "1969-12-31", "0001-01-01", "9999-12-31", " 2013-01-31"],
    "time": ["05:30", "00:00:00", "23:59:59.999999", "05:30:00.1"],
    "time(1)": ["05:30", "23:59:59.9"],
    "timestamp": ["2013-01-01", "2013-01-01T05:30", "1969-12-31 23:59:59.000001", "9999-12-31 23:59"],
    "timestamp(0)": ["2013-01-01 05:30:01"],
    "timestamptz": [
        "2013-01-01T05:30:00Z", "2013-01-01 05:30Z", "2013-01-01 06:30:00+01",
        "2013-01-01 06:30:00+0100", "2012-12-31 23:00:00.000000-06:30", "0001-01-01 00:00:00Z",
    ],
    "uuid": [ID, ID.upper(), ID.replace("-", ""), "{" + ID + "}"],
    # Not in the closed list: loaded as text, read by PostgreSQL.
    "char(5)": ["ab", "abcde"],
    "json": ['{"b": 1,  "a": null}', "[]"],
    "jsonb": ['{"b": 1,  "a": null}', '"\\u00e9"', "12.50"],
    "numeric": ["1e-30", "123456789012345678901234567890.5", "NaN"],
    "text[]": ['{a,"b,c",NULL}', "{}"],
    "integer[]": ["{1,2}", "{{1,2},{3,4}}"],
    "interval": ["1 day 02:03:04", "P1Y2M"],
    "inet": ["192.168.0.1/24", "::1"],
    "int4range": ["[1,3]", "empty"],
    "mood": ["glad", "sad"],
    "money": ["$1.50"],
    "point": ["(1,2)"],
    "xid8": ["5"],
}  # fmt: skip
KINDS = {f"c{place}": kind for place, kind in enumerate(WRITTEN)}
TABLE = (
    "CREATE TYPE mood AS ENUM ('glad', 'sad'); CREATE TABLE t (n int PRIMARY KEY, "
    + ", ".join(f"{name} {kind}" for name, kind in KINDS.items())
    + ", import_batch_id uuid)"
)


def written() -> str:
    """A CSV with a column for each type; where a type has no more ways, nothing stands."""
    file = io.StringIO()
    rows = zip_longest(*WRITTEN.values())
    csv.writer(file).writerows([["n", *KINDS], *([n, *row] for n, row in enumerate(rows))])
    return file.getvalue()


def stored(site: Site, name: str) -> list[str]:
    rows = site.sql(f"SELECT {name}::text FROM t WHERE {name} IS NOT NULL ORDER BY n")
    return [row[0] for row in rows]


def test_what_is_written_is_stored_as_postgresql_reads_it(site: MakeSite) -> None:
    """Given every type and every way to write it, when loaded, it is what a cast would have made."""
    here = site(TABLE)
    batch = here.load({"a.csv": written()})
    assert batch.status == "SUCCESS"
    for name, kind in KINDS.items():
        cast = (
            f"SELECT v::{kind}::text FROM unnest(%s::text[]) WITH ORDINALITY AS u (v, n) ORDER BY n"
        )
        expected = [row[0] for row in here.sql(cast, list(WRITTEN[kind]))]
        assert stored(here, name) == expected, kind
    (table,) = proofs.tables(here.connection, batch.batch_id)
    as_text = list(KINDS.values()).index("char(5)")
    assert table.columns == ["n", *list(KINDS)[:as_text]]
    assert table.normalised == list(KINDS)[as_text:]


def test_an_hour_stands_for_its_beginning(site18: MakeSite) -> None:
    here = site18("CREATE TABLE t (a timestamp, b timestamptz, import_batch_id uuid)")
    assert here.load({"a.csv": "a,b\n2013-01-01 05,2013-01-01T05Z\n"}).status == "SUCCESS"
    assert here.sql("SELECT a::text, b::text FROM t") == [
        ("2013-01-01 05:00:00", "2013-01-01 05:00:00+00")
    ]


DAY = dt.date(1969, 12, 31)
INSTANT = dt.datetime(1969, 12, 31, 23, 59, 59, 1, dt.UTC)
TYPED: dict[str, pa.Array] = {
    "boolean": pa.array([True, False, None]),
    "smallint": pa.array([-(2**15), 0, None], pa.int64()),
    "integer": pa.array([-(2**31), 2**31 - 1, None], pa.int32()),
    "bigint": pa.array([-(2**63), 2**63 - 1, None]),
    "real": pa.array([0.5, float("-inf"), None], pa.float32()),
    "double precision": pa.array([0.1, 5e-324, None]),
    "numeric(10,2)": pa.array([Decimal("-12.50"), Decimal("99999999.99"), None]),
    "numeric(12,2)": pa.array([12.5, 0.25, None]),
    "numeric(20,4)": pa.array([2**40, -1, None], pa.int64()),
    "text": pa.array(["", "é中😀\r\n", None]),
    "varchar(3)": pa.array(["abc", "é中😀", None]).dictionary_encode(),
    "bytea": pa.array([b"", b"\x00\xff", None]),
    "date": pa.array([DAY, dt.date(1, 1, 1), None]),
    "time": pa.array([dt.time(0), dt.time(23, 59, 59, 999999), None]),
    "time(3)": pa.array([1, 86_399_999, None], pa.time32("ms")),
    "timestamp": pa.array([INSTANT.replace(tzinfo=None), dt.datetime(9999, 1, 1), None]),  # noqa: DTZ001
    "timestamp(3)": pa.array([-1, 10**12, None], pa.timestamp("ms")),
    "timestamptz": pa.array([INSTANT, INSTANT, None], pa.timestamp("us", "Asia/Tokyo")),
    "uuid": pa.array([uuid.UUID(ID).bytes, bytes(16), None], pa.binary(16)),
    # Written into strings.
    "int": pa.array(["7", "-7", None]),
    "timestamp(6)": pa.array(["2013-01-01 05:30", "2013-01-01", None]),
    "bool": pa.array(["on", "no", None]),
    "decimal(5,2)": pa.array(["1.5", "1e2", None]),
    "jsonb": pa.array(['{"b": 1}', "null", None]),
    "char(5)": pa.array(["ab", "", None]),
    "numeric": pa.array(["1e-30", "0.1", None]),
}
# All nulls: what pandas makes of a column without values has no type.
EMPTY = [
    "boolean",
    "integer",
    "real",
    "numeric(5,2)",
    "text",
    "bytea",
    "date",
    "timestamptz",
    "uuid",
    "json",
]


@pytest.mark.parametrize("compression", ["snappy", "zstd"])
def test_what_is_typed_is_stored_as_it_is(site: MakeSite, compression: str) -> None:
    """Given Parquet of every type, when loaded, the same values come back and both readers agree."""
    names = {f"c{place}": kind for place, kind in enumerate([*TYPED, *EMPTY])}
    columns = ", ".join(f"{name} {kind}" for name, kind in names.items())
    here = site(f"CREATE TABLE t (n int PRIMARY KEY, {columns}, import_batch_id uuid)")
    arrays = [pa.array([1, 2, 3]), *TYPED.values(), *(pa.nulls(3) for _ in EMPTY)]
    content = pa.table(dict(zip(["n", *names], arrays, strict=True)))
    batch = here.load({"a.parquet": content})
    assert batch.status == "SUCCESS"
    for name, array in zip(names, arrays[1:], strict=True):
        kind = names[name]
        found = [row[0] for row in here.sql(f"SELECT {name} FROM t ORDER BY n")]
        expected = array.to_pylist()
        if kind in {"int", "timestamp(6)", "bool", "decimal(5,2)", "jsonb", "char(5)", "numeric"}:
            cast = (
                f"SELECT v::{kind} FROM unnest(%s::text[]) WITH ORDINALITY AS u (v, n) ORDER BY n"
            )
            expected = [row[0] for row in here.sql(cast, expected)]
        if kind == "uuid":
            found = [value and value.bytes for value in found]
        assert found == expected, kind


def test_a_price_that_a_float_does_not_mean_is_set_aside(site18: MakeSite) -> None:
    here = site18("CREATE TABLE t (price numeric(10,2), import_batch_id uuid)")
    files = {"a.parquet": pa.table({"price": [0.29, 1.005, None]})}
    said = check_bad_records(here, files, Bad("a.parquet", 2, "22003", "price"))
    assert "a.parquet, record 2, column price: does not fit into numeric(10,2)" in said


def test_nothing_and_empty_are_told_apart(site: MakeSite) -> None:
    here = site("CREATE TABLE t (a text, b char(3), c text, import_batch_id uuid)")
    here.load({"a.csv": 'a,b,c\n,,\n"","",""\n"",,'})
    assert here.sql("SELECT a, b, c FROM t WHERE a IS NULL") == [(None, None, None)]
    assert here.sql("SELECT a, b, c FROM t WHERE b IS NOT NULL") == [("", "   ", "")]
    assert here.sql("SELECT a, b, c FROM t WHERE a = '' AND b IS NULL") == [("", None, None)]
