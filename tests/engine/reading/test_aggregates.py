"""PostgreSQL and the second reader find the same in equal data, and say where it is not equal."""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from batch_pipelines.engine.catalog import STAMP, read_table, stamped_by
from batch_pipelines.engine.errors import ValidationError
from batch_pipelines.engine.intake import FORMATS
from batch_pipelines.engine.ledger.files import ImportFile
from batch_pipelines.engine.ledger.rejects import Rejects
from batch_pipelines.engine.reading.aggregates import Aggregate
from batch_pipelines.engine.reading.second_reader import SecondReader, source_columns
from batch_pipelines.engine.reading.target_aggregates import target_aggregates, target_statement
from batch_pipelines.engine.writing.judging import judge
from batch_pipelines.engine.writing.proof import Proof
from batch_pipelines.engine.writing.source import table_source
from batch_pipelines.engine.writing.staging import stage
from batch_pipelines.engine.writing.superseding import put_staged
from tests.support_columnar import COLUMNAR, write_columnar
from tests.support_engine import new_id
from tests.support_soak import short_or_long

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from batch_pipelines.engine.writing.source import TableSource
    from tests.engine.conftest import MakeSite
    from tests.support_engine import Content, Site

TABLE = "public.t"
CASES = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def one_column(site: Site, kind: str) -> None:
    """Make the table anew; many cases share a database, which takes longer to make than a case."""
    site.sql(f"DROP TABLE {TABLE}")
    site.sql(f"CREATE TABLE t (c {kind}, n integer, {STAMP} uuid)")


def read(site: Site, folder: Path, files: Mapping[str, Content]) -> TableSource:
    """Write files and describe them as ingest would."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = []
    for name, content in files.items():
        path = folder / name
        if isinstance(content, pa.Table):
            write_columnar(content, path)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        kind = FORMATS[path.suffix]
        listed.append(ImportFile(name, TABLE, 0, kind, None, 0, "", None, None))
    return table_source(read_table(site.connection, site.feed, TABLE), listed, folder)


def load(site: Site, source: TableSource) -> str:
    """Put a source into the table as bulk-write would, and nothing else; return the stamp."""
    batch_id = new_id()
    site.sql(f"TRUNCATE {TABLE}")
    with (
        site.database.connect("load") as connection,
        Rejects(source.folder.with_name("rejects")) as rejects,
    ):
        proof = Proof(source, source.folder.with_name("digests.parquet"), rejects)
        (staged,) = stage(connection, [proof], iter)
        assert judge(connection, [staged], None) == rejects.total == 0
        put_staged(connection, staged, batch_id, None)
    return batch_id


def seen(source: TableSource) -> dict[str, Aggregate]:
    with SecondReader(source) as reader:
        return reader.aggregates()


def stored_now(site: Site, source: TableSource) -> dict[str, Aggregate]:
    (stamp,) = site.stamps()
    assert stamp is not None
    return target_aggregates(site.connection, source, stamped_by(stamp))[1]


def assert_agreement(site: Site, source: TableSource, records: int) -> dict[str, Aggregate]:
    batch_id = load(site, source)
    _, stored = target_aggregates(site.connection, source, stamped_by(batch_id))
    with SecondReader(source) as reader:
        assert reader.records() == records == site.count(f"SELECT count(*) FROM {TABLE}")
        assert reader.aggregates() == stored
    return stored


# Values as CSV has them.


def csv_field(value: str | None) -> str:
    """Write a field: nothing is null, and "" is an empty text."""
    if value is None:
        return ""
    if value == "" or value.strip(" \t") != value or set(value) & set(',"\r\n'):
        return '"' + value.replace('"', '""') + '"'
    return value


def csv_text(names: Sequence[str], rows: Sequence[Sequence[str | None]], end: str = "\n") -> str:
    return "".join(",".join(map(csv_field, row)) + end for row in [names, *rows])


def written_integers(bits: int) -> st.SearchStrategy[str]:
    limit = 1 << bits - 1
    return (st.integers(-limit, limit - 1) | st.sampled_from([-limit, limit - 1, 0])).map(str)


def decimals(precision: int, scale: int) -> st.SearchStrategy[Decimal]:
    limit = 10**precision - 1
    unscaled = st.integers(-limit, limit) | st.sampled_from([0, 1, -1, limit, -limit])
    return unscaled.map(lambda value: Decimal(f"{value}E-{scale}"))


NUMERICS = {
    f"numeric({precision},{scale})": (precision, scale)
    for precision, scale in (
        (1, 0),
        (5, 5),
        (10, 2),
        (18, 10),
        (19, 4),
        (38, 0),
        (38, 10),
        (38, 38),
    )
}
TEXTS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8
) | st.sampled_from(
    ["", " ", '"', "a,b", "\r\n", "#", "NULL", "null", "\\N", "0x10", "😀", "Zz", "é"]
)
# Far enough from both ends that an offset does not lead out.
INSTANTS = st.datetimes(dt.datetime(2, 1, 1), dt.datetime(9998, 1, 1))  # noqa: DTZ001  # offset apart
OFFSETS = ("Z", "+00", "+01", "-06:30", "+1400")
WRITTEN: dict[str, st.SearchStrategy[str]] = {
    "boolean": st.sampled_from(
        ["t", "true", "TRUE", "y", "yes", "on", "ON", "1", "f", "False", "n", "no", "off", "0"]
    ),
    "smallint": written_integers(16) | st.just("007"),
    "integer": written_integers(32) | st.just("-0"),
    "bigint": written_integers(64),
    "real": st.floats(width=32).map(repr)
    | st.sampled_from(["0.1", "-0.0", "0", "NaN", "-Infinity"]),
    "double precision": st.floats().map(repr) | st.sampled_from(["1e5", ".5", "-0.0", "0", "inf"]),
    **{
        kind: decimals(*modifier).map(lambda value: f"{value:f}")
        for kind, modifier in NUMERICS.items()
    },
    "numeric(9,3)": st.sampled_from(["1e3", "-1E-3", "+.5", "5.", "12.500", "00012", "-0"]),
    "text": TEXTS,
    "varchar": TEXTS,
    "bytea": st.binary(max_size=6).map(lambda value: "\\x" + value.hex())
    | st.sampled_from(["\\x", "\\xABcd", "\\x00"]),
    "date": st.dates().map(str),
    "time": st.times().map(str) | st.sampled_from(["00:00", "23:59:59.999999", "05:30:00.100"]),
    "timestamp": st.datetimes().map(str)
    | st.sampled_from(["1969-12-31T23:59:59.000001", "2013-01-01", "2013-01-01 05:30"]),
    "timestamptz": st.builds(
        lambda instant, offset: instant.isoformat() + offset, INSTANTS, st.sampled_from(OFFSETS)
    ),
    "uuid": st.uuids().map(str)
    | st.uuids().map(lambda value: value.hex.upper())
    | st.uuids().map(lambda value: "{" + str(value) + "}"),
}
NAMES = tuple(f"c{place}" for place in range(len(WRITTEN)))
DDL = (
    "CREATE TABLE t ("
    + ", ".join(f"{name} {kind}" for name, kind in zip(NAMES, WRITTEN, strict=True))
    + f", {STAMP} uuid)"
)

Rows = list[tuple[Any, ...]]


def rows_of(kinds: Mapping[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Rows]:
    return st.lists(st.tuples(*(st.none() | kind | kind for kind in kinds.values())), max_size=6)


@short_or_long("examples", 12, 500)
def test_both_agree_on_csv_of_every_type(site18: MakeSite, examples: int) -> None:
    site = site18(DDL)
    folder = site.settings.staging / "batch" / "source"

    @settings(CASES, max_examples=examples)
    @given(
        files=st.lists(rows_of(WRITTEN), min_size=1, max_size=3),
        end=st.sampled_from(["\n", "\r\n"]),
    )
    def agree(files: list[Rows], end: str) -> None:
        texts = {f"{n}.csv": csv_text(NAMES, rows, end) for n, rows in enumerate(files)}
        assert_agreement(site, read(site, folder, texts), sum(map(len, files)))

    agree()


# Values as columnar files have them; dates and times as the integers they are, up to PostgreSQL's
# own limits.

INSTANTS_US = st.integers(-210_866_803_200_000_000, 9_223_371_331_199_999_999) | st.integers(-5, 5)
INSTANTS_NS = st.integers(-9_223_372_036_854_775, 9_223_372_036_854_775) | st.integers(-5, 5)
TYPED: dict[str, st.SearchStrategy[Any]] = {
    "boolean": st.booleans(),
    "smallint": written_integers(16).map(int),
    "integer": written_integers(32).map(int),
    "bigint": written_integers(64).map(int),
    "real": st.floats(width=32),
    "double precision": st.floats(),
    **{kind: decimals(*modifier) for kind, modifier in NUMERICS.items()},
    "numeric(9,3)": decimals(9, 3),
    "text": TEXTS,
    "varchar": TEXTS,
    "bytea": st.binary(max_size=6),
    "date": st.integers(-2_440_588, 2_145_031_948) | st.integers(-5, 5),
    "time": st.integers(0, 86_400_000_000),
    "timestamp": INSTANTS_US,
    "timestamptz": INSTANTS_US,
    "uuid": st.binary(min_size=16, max_size=16),
}
STAYED = "the two dictionaries list the types in the same order"
assert list(TYPED) == list(WRITTEN), STAYED


# Of ORC there are no times of day, and other times in 64 bits of nanoseconds.
NANOSECONDS = {"timestamp": INSTANTS_NS, "timestamptz": INSTANTS_NS}


@short_or_long("examples", 12, 500)
@pytest.mark.parametrize("suffix", COLUMNAR)
def test_both_agree_on_columnar_files_of_every_type(
    site18: MakeSite, suffix: str, examples: int
) -> None:
    site = site18(DDL)
    folder = site.settings.staging / "batch" / "source"
    table = read_table(site.connection, site.feed, TABLE)
    types = [column.wire.arrow for column in table.columns if column.wire is not None]
    schema = pa.schema(list(zip(NAMES, types, strict=True)))

    def columnar(rows: Rows) -> pa.Table:
        columns = zip(*rows, strict=True) if rows else [()] * len(types)
        arrays = [pa.array(list(v), t) for v, t in zip(columns, types, strict=True)]
        content = pa.table(arrays, schema=schema)
        times = [f.name for f in schema if suffix == "orc" and pa.types.is_time(f.type)]
        return content.drop_columns(times)

    kinds = TYPED | NANOSECONDS if suffix == "orc" else TYPED

    @settings(CASES, max_examples=examples)
    @given(files=st.lists(rows_of(kinds), min_size=1, max_size=3))
    def agree(files: list[Rows]) -> None:
        tables = {f"{n}.{suffix}": columnar(rows) for n, rows in enumerate(files)}
        assert_agreement(site, read(site, folder, tables), sum(map(len, files)))

    agree()


HELD: list[tuple[str, pa.Array]] = [
    ("bytea", pa.array(["\\x00ff", "\\x", None])),
    ("boolean", pa.array(["on", "f", None])),
    ("date", pa.array(["1969-12-31", None]).dictionary_encode()),
    ("uuid", pa.array(["12345678123456789ABCDEF012345678"], pa.large_string())),
    ("numeric(4,2)", pa.array(["-.5", "1e1"], pa.string_view())),
    ("timestamp", pa.array([-1, None], pa.timestamp("s"))),
    ("timestamptz", pa.array([1_000, -1_000], pa.timestamp("ns", "Europe/Berlin"))),
    ("time", pa.array([1, 86_399], pa.time32("s"))),
    ("time", pa.array([86_399_999_999_000], pa.time64("ns"))),
    ("date", pa.array([-86_400_000], pa.date64())),
    ("bigint", pa.array([2**63 - 1, 0], pa.uint64())),
    ("smallint", pa.array([-128], pa.int8())),
    ("integer", pa.array([Decimal("-7.00")])),
    ("numeric(10,2)", pa.array([1234, None, -1])),
    ("numeric(10,2)", pa.array([0.1, 12.34, None, -99999999.99])),
    ("numeric(38,20)", pa.array([0.5, -3.25])),
    ("double precision", pa.array([0.1, None], pa.float32())),
    ("real", pa.array([0.5, -2.0])),
    ("text", pa.nulls(3)),
    ("uuid", pa.nulls(1)),
    ("bytea", pa.array([b"\0a"], pa.large_binary())),
    ("bytea", pa.nulls(1)),
    ("boolean", pa.nulls(1)),
]


# Of these Arrow's writer of ORC knows nothing.
NOT_IN_ORC = (
    pa.types.is_dictionary, pa.types.is_string_view, pa.types.is_time, pa.types.is_null,
    pa.types.is_unsigned_integer, pa.types.is_date64,
)  # fmt: skip


@pytest.mark.parametrize("suffix", COLUMNAR)
def test_both_agree_on_what_columnar_files_may_hold_in_place_of_the_type(
    site18: MakeSite, suffix: str
) -> None:
    site = site18("CREATE TABLE t ()")
    for kind, values in HELD:
        if suffix == "orc" and any(is_one(values.type) for is_one in NOT_IN_ORC):
            continue
        one_column(site, kind)
        table = pa.table({"n": pa.nulls(len(values), pa.int32()), "c": values})
        source = read(site, site.settings.staging / "b" / "source", {f"a.{suffix}": table})
        stored = assert_agreement(site, source, len(values))
        assert stored["c"].values == len(values) - values.null_count


def test_which_of_two_equal_zeros_is_found_first_does_not_matter(site18: MakeSite) -> None:
    site = site18("CREATE TABLE t ()")
    for kind in ("real", "double precision"):
        one_column(site, kind)
        folder = site.settings.staging / "b" / "source"
        source = read(site, folder, {"a.csv": "c,n\n0,1\n-0.0,2\n"})
        before = assert_agreement(site, source, 2)
        # The row that was first is the last one now.
        site.sql("UPDATE t SET n = n WHERE n = 1")
        assert stored_now(site, source) == before


def test_files_of_both_formats_and_any_order_of_columns_are_one_source(site18: MakeSite) -> None:
    site = site18(f"CREATE TABLE t (a integer PRIMARY KEY, b text, c jsonb, {STAMP} uuid)")
    files: dict[str, Content] = {
        "1.csv": 'c,b,a\n"{}",x,1\n,,2\n',
        "2.parquet": pa.table({"b": ["y", None], "a": [3, 4], "c": ['{"k": 1}', None]}),
    }
    source = read(site, site.settings.staging / "b" / "source", files)
    stored = assert_agreement(site, source, 4)
    assert (stored["a"].values, stored["a"].total) == (4, "10")
    assert (stored["b"].values, stored["b"].total) == (2, "2")
    # What PostgreSQL normalises cannot be compared further than that it is there.
    assert stored["c"] == Aggregate(2, None, None)


# What CSV files look like out there.


ODDITIES: dict[str, tuple[bytes, int]] = {
    "no line end at the end": (b"a,b\n1,x\n2,y", 2),
    "a header alone": (b"a,b\n", 0),
    "a header alone, no line end": (b"a,b", 0),
    "breaks inside quotes": (b'a,b\r\n1,"x\r\ny"\r\n2,"p\nq"\r\n', 2),
    "lone carriage returns": (b"a,b\r1,x\r2,y\r", 2),
    "mixed line ends": (b"a,b\n1,x\r\n2,y\n3,z\r\n", 3),
    "empty lines before the header": (b"\n\n\na,b\n1,x\n", 1),
    "empty lines before the header, CRLF": (b"\r\n\r\na,b\r\n1,x\r\n", 1),
    "empty lines between records": (b"a,b\n\n1,x\n\n\n2,y\n\n", 2),
    "a byte order mark": (b"\xef\xbb\xbfa,b\n1,x\n", 1),
    "a byte order mark and quoted names": (b'\xef\xbb\xbf"a","b"\n1,x\n', 1),
    "a byte order mark and an empty line": (b"\xef\xbb\xbf\na,b\n1,x\n", 1),
    "what looks like a comment": (b"a,b\n1,#x\n2,# y\n3,z\n", 3),
    "lines that look like comments": (b"b,a\n#1,1\n#2,2\n#3,3\nz,4\n", 4),
    "empty texts and nulls": (b'a,b\n1,""\n2,\n,""\n,\n', 4),
    "quotes inside fields": (b'a,b\n3,\'q\'\n4,"""r"""\n', 2),
    "blanks": (b"a,b\n1,  x \n2,\t\n", 2),
    "texts that are names": (b"b,a\na,1\nb,2\n", 2),
    "other separators": (b"a,b\n1,2013-01-01\n2,3;4|5\n", 2),
    "a long line": (b"a,b\n1," + b"x" * 3_000_000 + b"\n", 1),
    "one column, an empty line, an empty text": (b'b\nx\n\ny\n""\n', 3),
    "one column, CRLF": (b"a\r\n1\r\n\r\n2\r\n", 2),
}


def test_both_agree_on_the_oddities_of_csv(site18: MakeSite) -> None:
    site = site18(f"CREATE TABLE t (a integer, b text, {STAMP} uuid)")
    for what, (content, records) in ODDITIES.items():
        folder = site.settings.staging / "b" / "source"
        assert_agreement(site, read(site, folder, {f"{what}.csv": content}), records)


ODD = ("a,b", 'say "x"', "a", "A", "with blank ", "x%sy", "{c}", "ünï", "c0", "v1", "two\nlines")


@pytest.mark.parametrize(
    ("end", "mark", "suffix"),
    [("\n", "", "parquet"), ("\r\n", "\ufeff", "arrows"), ("\n", "", "orc")],
)
def test_names_may_be_anything_that_a_column_may_be_called(
    site18: MakeSite, end: str, mark: str, suffix: str
) -> None:
    quoted = ", ".join(f"{sql.Identifier(name).as_string()} integer" for name in ODD)
    site = site18(f"CREATE TABLE t ({quoted}, {STAMP} uuid)")
    rows: list[list[str | None]] = [[str(place) for place in range(len(ODD))], [None] * len(ODD)]
    files: dict[str, Content] = {
        "1.csv": mark + csv_text(ODD, rows, end),
        f"2.{suffix}": pa.table([pa.array([100 * n]) for n in range(len(ODD))], names=list(ODD)),
    }
    folder = site.settings.staging / "b" / "source"
    source = read(site, folder, files)
    assert [source_columns(source, file) for file in source.files] == [list(ODD)] * 2
    stored = assert_agreement(site, source, 3)
    assert {name: found.total for name, found in stored.items()} == {
        name: str(101 * place) for place, name in enumerate(ODD)
    }


@pytest.mark.parametrize("suffix", ["csv", "parquet", "arrow", "orc"])
def test_file_names_are_no_patterns(site18: MakeSite, suffix: str) -> None:
    site = site18(f"CREATE TABLE t (a integer, {STAMP} uuid)")
    # In a folder whose name looks like a partition, beside a file that a pattern would find.
    folder = site.settings.staging / "a=1" / "source"
    for value, name in enumerate(["a", "a*", "[a]", "a?", "it's", "{x,y}", "ü ~"]):
        content = f"a\n{value}\n" if suffix == "csv" else pa.table({"a": [value]})
        source = read(site, folder, {f"{name}.{suffix}": content})
        assert assert_agreement(site, source, 1)["a"].total == str(value)


# What must not go unseen.


BETWEEN = [
    ("boolean", ["t", "f", "t"], "true"),
    ("smallint", ["-3", "-2", "3"], "2"),
    ("integer", ["-5", "0", "5"], "1"),
    ("bigint", ["-9223372036854775808", "1", "9223372036854775807"], "2"),
    ("numeric(10,2)", ["-0.01", "0.00", "0.01"], "0.001e1"),
    ("numeric(18,18)", ["-0.1", "0", "0.1"], "0.000000000000000001"),
    ("text", ["a", "b", "c"], "bb"),
    ("varchar", ["", "é", "中"], "e"),
    ("bytea", ["\\x", "\\x00", "\\x0000"], "\\x"),
    ("date", ["1969-12-30", "1970-01-01", "2013-01-01"], "1969-12-31"),
    ("time", ["00:00", "05:30", "23:59:59"], "05:30:00.000001"),
    ("timestamp", ["1969-01-01", "1970-01-01", "2013-01-01"], "1970-01-01 00:00:00.000001"),
    (
        "timestamptz",
        ["1969-01-01 00:00Z", "1970-01-01 00:00Z", "2013-01-01 00:00Z"],
        "1970-01-01 00:00+00:01",
    ),
]


def test_another_value_between_the_bounds_shows_in_the_sum(site18: MakeSite) -> None:
    site = site18("CREATE TABLE t ()")
    for kind, values, other in BETWEEN:
        one_column(site, kind)
        rows = [(value, str(place)) for place, value in enumerate(values)]
        folder = site.settings.staging / "b" / "source"
        source = read(site, folder, {"a.csv": csv_text(["c", "n"], rows)})
        before = assert_agreement(site, source, 3)
        site.sql(f"UPDATE t SET c = %s::{kind} WHERE n = 1", other)
        after = stored_now(site, source)
        assert after["n"] == before["n"]
        assert after["c"].total != before["c"].total
        assert (after["c"].values, after["c"].bounds) == (3, before["c"].bounds)


BOUNDS = [
    ("real", "0.1", "0.10000001"),
    ("double precision", "0.1", "0.10000000000000002"),
    ("double precision", "1", "NaN"),
    ("numeric(38,10)", "0.1", "0.1000000001"),
    ("numeric(38,0)", "9" * 38, "8" * 38),
    ("text", "a", "b"),
    ("text", "é", "e\u0301"),
    ("varchar", "a", "A"),
    ("integer", "1", "2"),
    ("date", "2013-01-01", "2013-01-02"),
    ("date", "0001-01-01", "0001-01-01 BC"),
    ("time", "05:30", "05:30:00.000001"),
    ("timestamp", "2013-01-01", "2013-01-01 00:00:00.000001"),
    ("timestamptz", "2013-01-01 00:00Z", "2013-01-01 00:00+01"),
    ("uuid", "12345678-1234-5678-9abc-def012345678", "12345678-1234-5678-9abc-def012345679"),
]


def test_another_bound_shows_and_is_not_told(site18: MakeSite) -> None:
    site = site18("CREATE TABLE t ()")
    for kind, value, other in BOUNDS:
        one_column(site, kind)
        folder = site.settings.staging / "b" / "source"
        source = read(site, folder, {"a.csv": csv_text(["c", "n"], [(value, "1"), (value, "2")])})
        before = assert_agreement(site, source, 2)["c"]
        # Of two values that are both bounds either is changed: one bound is another now.
        site.sql(f"UPDATE t SET c = %s::{kind} WHERE n = 1", other)
        after = stored_now(site, source)["c"]
        assert after.bounds != before.bounds
        assert after.bounds is not None
        assert len(after.bounds) == 12
        assert set(after.bounds) <= set("0123456789abcdef")


EXAMPLE = {
    "jsonb": "{}", "integer[]": "{}", "bytea": "\\x", "uuid": str(uuid.UUID(int=1)),
    "date": "2013-01-01", "time": "00:00", "timestamp": "1970-01-01",
    "timestamptz": "1970-01-01 00:00Z",
}  # fmt: skip


def test_a_lost_value_shows_in_the_count(site18: MakeSite) -> None:
    site = site18("CREATE TABLE t ()")
    for kind in [*WRITTEN, "jsonb", "integer[]"]:
        one_column(site, kind)
        value = EXAMPLE.get(kind, "0")
        folder = site.settings.staging / "b" / "source"
        source = read(site, folder, {"a.csv": csv_text(["c", "n"], [(value, "1"), (value, "2")])})
        assert assert_agreement(site, source, 2)["c"].values == 2
        site.sql("UPDATE t SET c = NULL WHERE n = 1")
        assert stored_now(site, source)["c"].values == 1


def test_the_statement_gives_what_is_shown(site18: MakeSite) -> None:
    site = site18(f"CREATE TABLE t (a integer, b text, {STAMP} uuid)")
    source = read(site, site.settings.staging / "b" / "source", {"f.csv": "a,b\n-3,\n5,xyz\n"})
    batch_id = load(site, source)
    # A row of another batch does not count.
    site.sql(f"INSERT INTO t VALUES (100, 'other', '{new_id()}')")
    statement = target_statement(source, source.columns, stamped_by(batch_id)).as_string(
        site.connection
    )
    assert site.sql(statement) == [(2, "2", "-3", "5", 1, "3", "xyz", "xyz")]
    found = seen(source)
    assert {name: (each.values, each.total) for name, each in found.items()} == {
        "a": (2, "2"),
        "b": (1, "3"),
    }
    assert target_aggregates(site.connection, source, stamped_by(batch_id))[1] == found


def test_keys_that_stand_twice_are_counted(site18: MakeSite) -> None:
    site = site18(f"CREATE TABLE t (a integer, b text, {STAMP} uuid)")
    files = {"1.csv": "a,b\n1,x\n2,x\n", "2.csv": "a,b\n01,y\n3,y\n4,y\n"}
    source = read(site, site.settings.staging / "b" / "source", files)
    keys = ("a", 1), ("b", 3), ("ab", 0), ("ba", 0), ("", 0)
    for key, twice in keys:
        with SecondReader(source, key=key) as reader:
            assert reader.duplicates() == twice


@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        (b"a,b\n1,x\nsecret,y\n", "ConversionException"),
        (b"a,b\n1,x\n2,secret,z,secret\n3\n", "InvalidInputException"),
        (b"a,b\n" + b"1,x\n" * 9999 + b"1,secret\xff\n", "InvalidInputException"),
    ],
)
def test_what_cannot_be_read_is_said_without_a_value(
    site18: MakeSite, damage: bytes, kind: str
) -> None:
    site = site18(f"CREATE TABLE t (a integer, b text, {STAMP} uuid)")
    folder = site.settings.staging / "b" / "source"
    source = read(site, folder, {"f.csv": "a,b\n1,x\n"})
    (folder / "f.csv").write_bytes(damage)
    with SecondReader(source) as reader, pytest.raises(ValidationError) as error:
        reader.aggregates()
    assert str(error.value) == (
        f"f.csv: the second reader could not read the source ({kind}). "
        "The rows are published but not validated."
    )
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__


def test_nothing_is_left_beside_the_source(site18: MakeSite) -> None:
    site = site18(f"CREATE TABLE t (a integer PRIMARY KEY, {STAMP} uuid)")
    folder = site.settings.staging / "b" / "source"
    source = read(site, folder, {"f.csv": "a\n1\n"})
    with SecondReader(source, key=["a"]) as reader:
        assert reader.duplicates() == 0
    assert [path.name for path in folder.parent.rglob("*")] == ["source", "f.csv"]
