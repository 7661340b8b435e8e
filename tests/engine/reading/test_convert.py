"""A value is converted exactly, or refused with its place, column and code and never itself."""

from __future__ import annotations

import datetime as dt
import decimal
import math
import uuid
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_pipelines.engine.reading import convert
from batch_pipelines.engine.reading.convert import to_wire
from batch_pipelines.engine.rejects import (
    BAD_ENCODING,
    BAD_TIME,
    BAD_VALUE,
    NOT_NULL,
    OUT_OF_RANGE,
    TOO_LONG,
    Breach,
)
from tests.support_columns import OIDS, column_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from batch_pipelines.engine.catalog import Column

ID = "12345678-1234-5678-9abc-def012345678"
ID_BYTES = uuid.UUID(ID).bytes
WIDE = decimal.Context(prec=38)
HALF_PAST_FIVE = dt.datetime(2013, 1, 1, 5, 30, tzinfo=dt.UTC)


def in_csv(*values: str | bytes | None) -> pa.Array:
    """Write values as CSV has them: bytes, and null where nothing stood."""
    return pa.array([v.encode() if isinstance(v, str) else v for v in values], pa.binary())


def from_text(column: Column, *values: str | None) -> pa.Array:
    """Convert values of CSV, of which none is refused."""
    found, wrong = to_wire(in_csv(*values), column, written=True)
    assert not wrong
    return found


def from_parquet(column: Column, values: pa.Array) -> pa.Array:
    found, wrong = to_wire(values, column, written=False)
    assert not wrong
    return found


def refused(values: pa.Array, column: Column, *, written: bool) -> dict[int, Breach]:
    """Convert values; what is wrong with which."""
    found, wrong = to_wire(values, column, written=written)
    assert len(found) == len(values)
    assert found.type == (pa.string() if column.wire is None else column.wire.arrow)
    assert all(found[place].as_py() is None for place in wrong)
    assert all(breach.column == column.name for breach in wrong.values())
    return wrong


def messages(kind: str) -> set[str]:
    """List all that is said of a value; none of it is the value."""
    return {
        f"is not a valid {kind}",
        f"does not fit into {kind}",
        "is not UTF-8",
        "holds a NUL, which PostgreSQL's text cannot",
    }


def codes(wrong: dict[int, Breach]) -> dict[int, str]:
    return {place: breach.sqlstate for place, breach in wrong.items()}


def local(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text)


# Text


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        *(("boolean", text, True) for text in ("t", "true", "TRUE", "y", "yes", "on", "On", "1")),
        *(("boolean", text, False) for text in ("f", "false", "n", "no", "off", "OFF", "0")),
        ("smallint", "-32768", -(2**15)),
        ("integer", "2147483647", 2**31 - 1),
        ("integer", "007", 7),
        ("integer", "-0", 0),
        ("integer", " 5", 5),
        ("integer", "\t5 ", 5),
        ("bigint", "-9223372036854775808", -(2**63)),
        ("real", "0.5", 0.5),
        ("real", "0.1", 0.10000000149011612),
        ("double precision", "0.1", 0.1),
        ("double precision", ".5", 0.5),
        ("double precision", "1e5", 1e5),
        ("double precision", "-1E-5", -1e-5),
        ("double precision", "5e-324", 5e-324),
        ("double precision", " 1.5 ", 1.5),
        ("double precision", "1e-400", 0.0),
        ("double precision", "inf", math.inf),
        ("double precision", "-Infinity", -math.inf),
        ("numeric(10,2)", "12.5", Decimal("12.50")),
        ("numeric(10,2)", "-12.500", Decimal("-12.50")),
        ("numeric(10,2)", "1e3", Decimal("1000.00")),
        ("numeric(10,2)", "+.5", Decimal("0.50")),
        ("numeric(10,2)", " 5\t", Decimal("5.00")),
        ("numeric(10,2)", "5.", Decimal("5.00")),
        ("numeric(10,2)", "0" * 50 + "5." + "0" * 50, Decimal("5.00")),
        ("numeric(38,37)", "2.0539e0", Decimal("2.0539").quantize(Decimal("1e-37"), context=WIDE)),
        ("numeric(10,2)", "99999999.99", Decimal("99999999.99")),
        ("numeric(38,0)", "9" * 38, Decimal("9" * 38)),
        ("text", "", ""),
        ("text", "é中😀 \n,\"'", "é中😀 \n,\"'"),
        ("varchar", "x" * 100, "x" * 100),
        ("bytea", "\\x", b""),
        ("bytea", "\\x00fFAb", b"\x00\xff\xab"),
        ("date", "2013-01-31", dt.date(2013, 1, 31)),
        ("date", " 2013-01-31", dt.date(2013, 1, 31)),
        ("date", "0001-01-01", dt.date(1, 1, 1)),
        ("date", "9999-12-31", dt.date(9999, 12, 31)),
        ("time", "05:30", dt.time(5, 30)),
        ("time", "23:59:59.999999", dt.time(23, 59, 59, 999999)),
        ("timestamp", "2013-01-01", local("2013-01-01")),
        ("timestamp", "2013-01-01 05", local("2013-01-01T05:00:00")),
        ("timestamp", "2013-01-01 05:30", local("2013-01-01T05:30:00")),
        ("timestamp", "1969-12-31T23:59:59.000001", local("1969-12-31T23:59:59.000001")),
        ("timestamptz", "2013-01-01T05:30:00Z", HALF_PAST_FIVE),
        ("timestamptz", "2013-01-01 05:30Z", HALF_PAST_FIVE),
        ("timestamptz", "2013-01-01T06Z", HALF_PAST_FIVE + dt.timedelta(minutes=30)),
        ("timestamptz", "2013-01-01 06:30:00+01", HALF_PAST_FIVE),
        ("timestamptz", "2013-01-01 06:30:00+0100", HALF_PAST_FIVE),
        ("timestamptz", "2012-12-31 23:00:00.000000-06:30", HALF_PAST_FIVE),
        ("uuid", ID, ID_BYTES),
        ("uuid", ID.upper(), ID_BYTES),
        ("uuid", ID.replace("-", ""), ID_BYTES),
        ("uuid", "{" + ID + "}", ID_BYTES),
        ("jsonb", '{"a": 1}', '{"a": 1}'),
        ("jsonb", "whatever PostgreSQL makes of it", "whatever PostgreSQL makes of it"),
    ],
)
def test_what_is_written_is_read(kind: str, text: str, value: object) -> None:
    column = column_of(kind)
    found = from_text(column, text, None)
    assert found.type == (pa.string() if column.wire is None else column.wire.arrow)
    assert found.to_pylist() == [value, None]
    # Next to what is plainly wrong it is looked at in another way.
    beside, wrong = to_wire(in_csv(text, b"\xff", None), column, written=True)
    assert beside.to_pylist() == [value, None, None]
    assert list(wrong) == [1]


def test_not_a_number_is_one() -> None:
    (found,) = from_text(column_of("double precision"), "NaN").to_pylist()
    assert math.isnan(found)


REFUSED = {
    "boolean": ["", "tr", "2", "-1", "wahr", "null", " true"],
    "smallint": ["32768"],
    "integer": [
        "", " ", "one", "5 5", "\n5", "1.0", "1e3", "0x10", "0X1f", " 0x10", "1_000", "1,000",
        "\u0663", "+1", "--1", "2147483648", "-2147483649",
    ],
    "bigint": ["9223372036854775808"],
    "double precision": [
        "", "one", "1,5", "1e400", "-1e309", "0x1p3", "1_0", "infinite", "5 5",
    ],
    "real": ["1e39"],
    "numeric(10,2)": [
        "", "12.505", "1e-3", "100000000", "1e8", "NaN", "inf", "1_0", "12,50", "0x1", "5 5",
        str(2**128 + 5),
    ],
    "numeric(38,0)": ["9" * 39, "1e-1", "1e99999"],
    "numeric(38,37)": ["205.39"],
    "text": ["a\0b"],
    "varchar": ["\0"],
    "jsonb": ['"\0"'],
    "bytea": ["", "00ff", "\\x0", "\\x0g", "\\x 00", "\\000", "\\x\uff100"],
    "date": [
        "", "2013-02-30", "2013-1-1", "20130101", "01/02/2013", "2013-01-01 00:00:00", "infinity",
        "0000-01-01", "10000-01-01", "0044-03-15 BC", "today",
    ],
    "time": [
        "", "5", "12", "24:00", "12:60", "5:30", "05:30Z", "05:30+01", "05:30:00.0000001", " 05:30",
    ],
    "timestamp": [
        "", " 2013-01-01", "2013-01-01 05:30Z", "2013-01-01 05:30:00+01", "now",
        "2013-01-01 24:00:00", "2013-01-01 05:30:00.0000001", "0000-01-01 00:00:00",
    ],
    "timestamptz": [
        "", "2013-01-01 05:30:00", "2013-01-01", "2013-01-01 05:30:00 Europe/Berlin",
        "2013-01-01 05:30:00 UTC", "0000-01-01 00:00:00Z",
    ],
    "uuid": [
        "", ID[:-1], ID + "0", ID.replace("1", "_", 1), ID.replace("-", "_"), "urn:uuid:" + ID,
        "{" + ID, ID + "}", "}" + ID + "{", ID.replace("-", "", 1), ID[:-1] + "\uff19",
        ID[:-1] + "g", " " + ID,
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "text"), [(kind, text) for kind, texts in REFUSED.items() for text in texts]
)
def test_what_could_be_read_in_two_ways_or_none_is_refused(kind: str, text: str) -> None:
    wrong = refused(in_csv(None, text), column_of(kind), written=True)
    assert list(wrong) == [1]
    assert wrong[1].message in messages(kind)


@pytest.mark.parametrize(
    ("kind", "text", "breach"),
    [
        ("integer", "one", (BAD_VALUE, "is not a valid integer")),
        ("integer", "+1", (BAD_VALUE, "is not a valid integer")),
        ("integer", "1.0", (BAD_VALUE, "is not a valid integer")),
        ("integer", " 2147483648", (OUT_OF_RANGE, "does not fit into integer")),
        ("bigint", "-9223372036854775809", (OUT_OF_RANGE, "does not fit into bigint")),
        ("integer", "1\0", (BAD_ENCODING, "holds a NUL, which PostgreSQL's text cannot")),
        ("integer", b"\xff", (BAD_ENCODING, "is not UTF-8")),
        ("double precision", "1e400", (OUT_OF_RANGE, "does not fit into double precision")),
        ("double precision", "+1e400", (OUT_OF_RANGE, "does not fit into double precision")),
        ("double precision", "1,5", (BAD_VALUE, "is not a valid double precision")),
        ("numeric(10,2)", "1.505", (OUT_OF_RANGE, "does not fit into numeric(10,2)")),
        ("numeric(10,2)", "+1e8", (OUT_OF_RANGE, "does not fit into numeric(10,2)")),
        ("numeric(10,2)", "1,50", (BAD_VALUE, "is not a valid numeric(10,2)")),
        ("boolean", "2", (BAD_VALUE, "is not a valid boolean")),
        ("bytea", "00", (BAD_VALUE, "is not a valid bytea")),
        ("bytea", b"\\x\xff", (BAD_ENCODING, "is not UTF-8")),
        ("uuid", "1", (BAD_VALUE, "is not a valid uuid")),
        ("date", "2013-02-30", (BAD_TIME, "is not a valid date")),
        ("time", "24:61", (BAD_TIME, "is not a valid time")),
        ("timestamptz", "2013-01-01 05:30", (BAD_TIME, "is not a valid timestamptz")),
        ("text", "a\0", (BAD_ENCODING, "holds a NUL, which PostgreSQL's text cannot")),
        ("jsonb", b"caf\xe9", (BAD_ENCODING, "is not UTF-8")),
    ],
)
def test_what_is_refused_has_postgresqls_code(
    kind: str, text: str | bytes, breach: tuple[str, str]
) -> None:
    (found,) = refused(in_csv(text), column_of(kind), written=True).values()
    assert (found.sqlstate, found.message) == breach


@pytest.mark.parametrize("kind", ["text", "varchar", "integer", "jsonb"])
def test_bytes_that_are_no_utf8_are_refused(kind: str) -> None:
    wrong = refused(in_csv("1", b"caf\xe9", "2"), column_of(kind), written=True)
    assert wrong == {1: Breach(BAD_ENCODING, "is not UTF-8", "c")}


def test_a_length_is_counted_in_characters() -> None:
    column = column_of("varchar", max_length=3)
    assert from_text(column, "é中😀", "").to_pylist() == ["é中😀", ""]
    wrong = refused(in_csv("abc", "abcd"), column, written=True)
    assert wrong == {1: Breach(TOO_LONG, "is not a valid varchar", "c")}


@pytest.mark.parametrize("kind", ["time", "timestamp", "timestamptz"])
def test_what_postgresql_would_round_is_refused(kind: str) -> None:
    day, zone = ("" if kind == "time" else "1969-12-31 "), ("Z" if kind == "timestamptz" else "")
    column = column_of(kind, second_digits=1)
    assert len(from_text(column, f"{day}23:59:59.9{zone}", None, f"{day}23:59{zone}")) == 3
    finer = in_csv(f"{day}23:59:59.9{zone}", f"{day}23:59:59.99{zone}")
    assert codes(refused(finer, column, written=True)) == {1: BAD_TIME}
    whole = column_of(kind, second_digits=0)
    assert len(from_text(whole, f"{day}23:59:59.000{zone}")) == 1
    tenth = in_csv(f"{day}23:59:59.1{zone}")
    assert codes(refused(tenth, whole, written=True)) == {0: BAD_TIME}


def test_a_column_that_needs_a_value_says_where_there_is_none() -> None:
    column = column_of("text", not_null=True)
    assert from_text(column, "", "a").to_pylist() == ["", "a"]
    wrong = refused(in_csv("", None, "a\0", None), column, written=True)
    assert codes(wrong) == {1: NOT_NULL, 2: BAD_ENCODING, 3: NOT_NULL}
    assert wrong[1].message == "has no value, and the table needs one there"
    empty = refused(pa.nulls(2), column, written=False)
    assert codes(empty) == {0: NOT_NULL, 1: NOT_NULL}


# What is fine for some type, what is for none, and what looks like one of those.
WRITTEN = st.sampled_from(
    [
        b"1", b"0", b"t", b"abc", b"1.5", b"-7", b" 5", b"1e5", b"NaN", b"-Infinity", b"\\x00ff", b"",
        b"2013-01-01", b"05:30", b"2013-01-01T05:30:00", b"2013-01-01 05:30:00+01", ID.encode(),
        b"99999999999999999999", b"2013-02-30", b"geheim", b"caf\xe9", b"a\0b", b"\xc3\xa9", b"0x10",
        b"1_0", None,
    ]
)  # fmt: skip


@given(
    values=st.lists(WRITTEN | st.binary(max_size=3), min_size=1, max_size=40),
    kind=st.sampled_from([*OIDS, "numeric(10,2)", "numeric(38,37)"]),
    not_null=st.booleans(),
)
def test_what_is_refused_among_others_is_what_is_refused_alone(
    values: list[bytes | None], kind: str, *, not_null: bool
) -> None:
    limit = 5 if kind in {"text", "varchar"} else None
    column = column_of(kind, not_null=not_null, max_length=limit)
    found, wrong = to_wire(in_csv(*values), column, written=True)
    for place, value in enumerate(values):
        alone, problem = to_wire(in_csv(value), column, written=True)
        # As text, because NaN is not equal to itself.
        assert str(alone[0]) == str(found[place])
        assert problem.get(0) == wrong.get(place)
    assert all("geheim" not in breach.message for breach in wrong.values())


SHAPES = st.text("0123456789+-.eExX :TZz\\{}abcinfINFNaty\t\n,_é\u0663\uff11", max_size=25)


@given(
    text=SHAPES
    | st.from_regex(r"[ \t]?[+-]?[0-9]{1,3}\.?[0-9]*([eE][+-]?[0-9])?[ \t]?", fullmatch=True)
    | st.from_regex(
        r"\d{4}-\d\d-\d\d([ Tt]\d\d(:\d\d(:\d\d([.,]\d{1,6})?)?)?)?([Zz]|[+-]\d\d:?\d\d)?",
        fullmatch=True,
    )
    | st.from_regex(r"\d\d:\d\d(:\d\d([.,]\d{1,6})?)?[Zz]?", fullmatch=True)
    | st.sampled_from(
        ["nan", "-NAN", "iNf", "+inf", "Infinity", "-INFINITY", "{" + ID + "}", ID.upper()]
    ),
)
@pytest.mark.parametrize("kind", [*OIDS, "numeric(10,2)"])
def test_what_is_plainly_wrong_is_not_taken_otherwise(text: str, kind: str) -> None:
    """Given text that the quick look refuses, so does the conversion itself."""
    column = column_of(kind)
    assert column.wire is not None or kind == "jsonb"
    pattern = convert._STRANGE.get(column.wire.oid) if column.wire is not None else None
    for values in (in_csv(text), pa.array([text])):
        if pattern is not None and pc.match_substring_regex(values, pattern)[0].as_py():
            with pytest.raises(convert._RefusedError):
                convert._convert(values, column, written=pa.types.is_binary(values.type))


@given(count=st.integers(1, 300), wrong=st.sets(st.integers(0, 299), max_size=5))
@pytest.mark.parametrize("bad", [b"geheim", b"99999999999"])
def test_wrong_values_are_found_wherever_they_are(count: int, wrong: set[int], bad: bytes) -> None:
    places = {place % count for place in wrong}
    values = [bad if place in places else b"%d" % place for place in range(count)]
    found, refusals = to_wire(in_csv(*values), column_of("integer"), written=True)
    assert set(refusals) == places
    assert found.to_pylist() == [None if place in places else place for place in range(count)]


# Parquet

BAD_UTF8 = pa.Array.from_buffers(
    pa.string(), 2, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0\3\0\0\0"), pa.py_buffer(b"a\xff\xfe")]
)


def as_type(number: int, integer: pa.DataType, kind: pa.DataType) -> pa.Array:
    return pa.array([number], integer).view(kind)


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        ("boolean", pa.array([True, None]), [True, None]),
        ("boolean", pa.array(["on"]), [True]),
        ("smallint", pa.array([-(2**15)], pa.int64()), [-(2**15)]),
        ("integer", pa.array([5, None], pa.uint8()), [5, None]),
        ("integer", pa.array([5.0, None]), [5, None]),
        ("integer", pa.array([Decimal("5.0")]), [5]),
        ("integer", pa.array(["5"]), [5]),
        ("bigint", pa.array([2**63 - 1], pa.uint64()), [2**63 - 1]),
        ("real", pa.array([0.1], pa.float32()), [0.10000000149011612]),
        ("real", pa.array([0.5, math.inf]), [0.5, math.inf]),
        ("double precision", pa.array([0.1, None]), [0.1, None]),
        ("double precision", pa.array([2**53], pa.int64()), [2.0**53]),
        ("double precision", pa.array([Decimal("0.1")]), [0.1]),
        ("numeric(10,2)", pa.array([5, -7, None], pa.int64()), [Decimal(5), Decimal(-7), None]),
        ("numeric(20,0)", pa.array([2**64 - 1], pa.uint64()), [Decimal(2**64 - 1)]),
        ("numeric(10,2)", pa.array([0.29, 1.25, None]), [Decimal("0.29"), Decimal("1.25"), None]),
        ("numeric(10,2)", pa.array([0.5], pa.float32()), [Decimal("0.50")]),
        ("numeric(10,2)", pa.array([Decimal("1.500")]), [Decimal("1.50")]),
        ("numeric(10,2)", pa.array([Decimal("1.5")], pa.decimal256(60, 3)), [Decimal("1.50")]),
        ("text", pa.array(["", "é", None]), ["", "é", None]),
        ("text", pa.array(["a", "b", "a"]).dictionary_encode(), ["a", "b", "a"]),
        ("text", pa.array(["a"], pa.large_string()), ["a"]),
        ("text", pa.array(["a"], pa.string_view()), ["a"]),
        ("text", pa.nulls(2), [None, None]),
        ("jsonb", pa.array(["{}"]), ["{}"]),
        ("bytea", pa.array([b"", b"\0", None]), [b"", b"\0", None]),
        ("bytea", pa.array([b"ab"], pa.binary(2)), [b"ab"]),
        ("bytea", pa.array([b"ab"], pa.large_binary()), [b"ab"]),
        ("bytea", pa.array(["\\x00"]), [b"\0"]),
        ("date", pa.array([dt.date(1969, 12, 31)]), [dt.date(1969, 12, 31)]),
        ("date", pa.array([dt.date(1969, 12, 31)], pa.date64()), [dt.date(1969, 12, 31)]),
        ("date", pa.array(["2013-01-01"]), [dt.date(2013, 1, 1)]),
        ("date", pa.nulls(1), [None]),
        ("time", pa.array([5 * 3600], pa.time32("s")), [dt.time(5)]),
        ("time", pa.array([1000], pa.time64("ns")), [dt.time(0, 0, 0, 1)]),
        ("timestamp", pa.array([-1], pa.timestamp("s")), [local("1969-12-31T23:59:59")]),
        ("timestamp", pa.array([1000], pa.timestamp("ns")), [local("1970-01-01T00:00:00.000001")]),
        (
            "timestamptz",
            pa.array([HALF_PAST_FIVE], pa.timestamp("ms", "Europe/Berlin")),
            [HALF_PAST_FIVE],
        ),
        ("uuid", pa.array([ID_BYTES]), [ID_BYTES]),
        ("uuid", pa.array([ID_BYTES], pa.binary(16)), [ID_BYTES]),
        ("uuid", pa.array([ID_BYTES], pa.uuid()), [ID_BYTES]),
        ("uuid", pa.array([ID]), [ID_BYTES]),
    ],
)
def test_what_is_typed_is_carried_over(kind: str, values: pa.Array, expected: list[object]) -> None:
    column = column_of(kind)
    found = from_parquet(column, values)
    assert found.type == (pa.string() if column.wire is None else column.wire.arrow)
    assert found.to_pylist() == expected


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("boolean", pa.array([1], pa.int8())),
        ("integer", pa.array([True])),
        ("integer", pa.array([2**31])),
        ("integer", pa.array([5.5])),
        ("integer", pa.array([math.nan])),
        ("integer", pa.array([Decimal("5.5")])),
        ("integer", pa.array(["0x10"])),
        ("integer", pa.array([[1]])),
        ("bigint", pa.array([2**63], pa.uint64())),
        ("real", pa.array([0.1])),
        ("real", pa.array([1e300])),
        ("real", pa.array([1e-320])),
        ("real", pa.array([2**24 + 1])),
        ("double precision", pa.array([2**53 + 1])),
        ("double precision", pa.array([Decimal("12345678901234567890.1")])),
        ("numeric(10,2)", pa.array([10**8])),
        ("numeric(38,37)", pa.array([205])),
        ("numeric(38,38)", pa.array([Decimal("118067276195.7")])),
        ("numeric(38,2)", pa.array([Decimal(10**50)])),
        ("numeric(10,2)", pa.array([1.234])),
        ("numeric(10,2)", pa.array([1e8])),
        ("numeric(10,2)", pa.array([math.inf])),
        ("numeric(10,2)", pa.array([math.nan])),
        ("numeric(10,2)", pa.array([Decimal("1.505")])),
        ("numeric(10,2)", pa.array([True])),
        ("text", pa.array([1])),
        ("text", pa.array([b"a"])),
        ("text", pa.array([True])),
        ("text", pa.array([dt.date(2013, 1, 1)])),
        ("text", pa.array(["a\0b"])),
        ("text", BAD_UTF8.slice(1)),
        ("jsonb", BAD_UTF8.slice(1)),
        ("integer", BAD_UTF8.slice(1)),
        ("jsonb", pa.array([{"a": 1}])),
        ("bytea", pa.array([1])),
        ("bytea", pa.array(["00"])),
        ("date", pa.array([0], pa.timestamp("us"))),
        ("date", pa.array([0])),
        ("date", as_type(1, pa.int64(), pa.date64())),
        ("date", as_type(-2_440_589, pa.int32(), pa.date32())),
        ("date", as_type(2_145_031_949, pa.int32(), pa.date32())),
        ("time", pa.array([1], pa.time64("ns"))),
        ("time", as_type(-1, pa.int64(), pa.time64("us"))),
        ("time", as_type(86_400_000_001, pa.int64(), pa.time64("us"))),
        ("time", pa.array([0], pa.timestamp("us"))),
        ("timestamp", pa.array([1], pa.timestamp("ns"))),
        ("timestamp", pa.array([0], pa.timestamp("us", "UTC"))),
        ("timestamp", pa.array([dt.date(2013, 1, 1)])),
        ("timestamp", pa.array([-210_866_803_200_000_001], pa.timestamp("us"))),
        ("timestamp", pa.array([9_223_371_331_200_000_000], pa.timestamp("us"))),
        ("timestamp", pa.array([2**62], pa.timestamp("s"))),
        ("timestamptz", pa.array([0], pa.timestamp("us"))),
        ("timestamptz", pa.array([-(2**63) + 1], pa.timestamp("us", "UTC"))),
        ("uuid", pa.array([b"0123456789abcde"])),
        ("uuid", pa.array([b"0123"], pa.binary(4))),
        ("uuid", pa.array([1])),
    ],
)
def test_what_would_change_on_the_way_is_refused(kind: str, values: pa.Array) -> None:
    for array in (values, values.dictionary_encode() if is_plain(values) else values):
        (breach,) = refused(array, column_of(kind), written=False).values()
        assert breach.message in messages(kind)


def is_plain(values: pa.Array) -> bool:
    return not (pa.types.is_nested(values.type) or pa.types.is_boolean(values.type))


@pytest.mark.parametrize(
    ("kind", "values", "sqlstate"),
    [
        ("integer", pa.array([2**31]), OUT_OF_RANGE),
        ("integer", pa.array([5.5]), OUT_OF_RANGE),
        ("numeric(10,2)", pa.array([Decimal("1.505")]), OUT_OF_RANGE),
        ("integer", pa.array([True]), BAD_VALUE),
        ("integer", pa.array([[1]]), BAD_VALUE),
        ("integer", pa.array(["x"], pa.string_view()), BAD_VALUE),
        ("integer", pa.array([ID_BYTES], pa.uuid()), BAD_VALUE),
        ("integer", pa.array(["2147483648"], pa.large_string()), OUT_OF_RANGE),
        ("text", pa.array([1]), BAD_VALUE),
        ("text", BAD_UTF8.slice(1), BAD_ENCODING),
        ("text", pa.array(["\0"], pa.string_view()), BAD_ENCODING),
        ("date", pa.array([0], pa.timestamp("us")), BAD_TIME),
        ("timestamp", pa.array([1], pa.timestamp("ns")), BAD_TIME),
        ("timestamp", pa.array([2**62], pa.timestamp("s")), BAD_TIME),
    ],
)
def test_what_is_typed_otherwise_has_a_code(kind: str, values: pa.Array, sqlstate: str) -> None:
    assert codes(refused(values, column_of(kind), written=False)) == {0: sqlstate}


@given(cents=st.lists(st.integers(-(10**10) + 1, 10**10 - 1)))
def test_every_price_that_fits_survives_as_a_float(cents: list[int]) -> None:
    """A float that is the nearest to a decimal of the column's scale means that decimal."""
    prices = [Decimal(each) / 100 for each in cents]
    floats = pa.array([float(price) for price in prices], pa.float64())
    assert from_parquet(column_of("numeric(10,2)"), floats).to_pylist() == prices
    decimals = pa.array(prices, pa.decimal128(12, 2))
    assert from_parquet(column_of("double precision"), decimals).to_pylist() == floats.to_pylist()


@st.composite
def numbers(draw: st.DrawFn) -> str:
    """A decimal number as people and programs write it, of any size."""
    digits = draw(st.text("0123456789", min_size=1, max_size=45))
    point = draw(st.integers(0, len(digits)))
    text = digits[:point] + draw(st.sampled_from([".", ""])) + digits[point:]
    exponent = draw(st.sampled_from(["", "", "e{}", "E+{}", "e-{}"])).format(
        draw(st.integers(0, 50))
    )
    return draw(st.sampled_from(["", "-", "+"])) + text + exponent


def fits(value: Decimal, precision: int, scale: int) -> bool:
    shifted = Fraction(value) * 10**scale
    return bool(shifted.denominator == 1 and abs(shifted) < 10**precision)


@given(
    text=numbers(),
    precision=st.sampled_from([5, 19, 38]),
    share=st.sampled_from([0, 0.3, 1]),
)
def test_a_decimal_is_exactly_itself_or_refused(text: str, precision: int, share: float) -> None:
    """Whatever its size: Arrow's own reader wraps around at 128 bits and says nothing."""
    scale = int(precision * share)
    column = column_of(f"numeric({precision},{scale})")
    if fits(Decimal(text), precision, scale):
        assert from_text(column, text).to_pylist() == [Decimal(text)]
    else:
        wrong = refused(in_csv(text), column, written=True)
        assert codes(wrong) == {0: OUT_OF_RANGE}


@given(
    value=st.decimals(-(10**30), 10**30, places=3),
    precision=st.sampled_from([5, 19, 38]),
    share=st.sampled_from([0, 0.3, 0.9, 1]),
)
def test_a_typed_decimal_is_exactly_itself_or_refused(
    value: Decimal, precision: int, share: float
) -> None:
    scale = int(precision * share)
    column = column_of(f"numeric({precision},{scale})")
    typed = pa.array([value], pa.decimal128(38, 3))
    if fits(value, precision, scale):
        assert from_parquet(column, typed).to_pylist() == [value]
    else:
        assert codes(refused(typed, column, written=False)) == {0: OUT_OF_RANGE}


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "boolean": st.booleans(),
    "integer": st.integers(-(2**31), 2**31 - 1),
    "bigint": st.integers(-(2**63), 2**63 - 1),
    "double precision": st.floats(allow_nan=False, allow_infinity=False),
    "numeric(12,3)": st.integers(-(10**12) + 1, 10**12 - 1).map(
        lambda value: Decimal(value) / 1000
    ),
    "text": st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    "bytea": st.binary(),
    "date": st.dates(),
    "time": st.times(),
    "timestamp": st.datetimes(),
    "uuid": st.uuids(),
}
WRITE: dict[str, Callable[[Any], str]] = {
    "boolean": lambda value: str(value).lower(),
    "bytea": lambda value: "\\x" + value.hex(),
}


@given(data=st.data(), kind=st.sampled_from(list(VALUES)))
def test_written_and_typed_values_mean_the_same(data: st.DataObject, kind: str) -> None:
    column = column_of(kind)
    assert column.wire is not None
    values = data.draw(st.lists(st.none() | VALUES[kind], min_size=1, max_size=20))
    write = WRITE.get(kind, str)
    written = from_text(column, *(None if value is None else write(value) for value in values))
    if kind == "uuid":
        values = [None if value is None else value.bytes for value in values]
    assert written.equals(from_parquet(column, pa.array(values, column.wire.arrow)))
    assert written.to_pylist() == values
