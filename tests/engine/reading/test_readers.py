"""Files are read as a stream of chunks: every record, in order, under its own number, or a reject."""

from __future__ import annotations

import csv
import io
import json
from decimal import Decimal
from itertools import chain
from typing import TYPE_CHECKING
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batch_pipelines.engine.errors import DeliveryError, FeedError
from batch_pipelines.engine.reading import blocks, pieces
from batch_pipelines.engine.reading.convert import to_wire
from batch_pipelines.engine.reading.count import CsvScan
from batch_pipelines.engine.reading.readers import read_chunks
from batch_pipelines.engine.rejects import (
    BAD_ENCODING,
    BAD_FORMAT,
    BAD_VALUE,
    NOT_NULL,
    OUT_OF_RANGE,
)
from tests.engine.reading import oracle
from tests.engine.reading.oracle import CONTENTS, FIELDS, quoted
from tests.engine.reading.test_convert import BAD_UTF8, REFUSED
from tests.support_columns import OIDS, column_of, table_of

if TYPE_CHECKING:
    from pathlib import Path

    from batch_pipelines.engine.catalog import TableInfo
    from batch_pipelines.engine.reading.chunks import Chunk
    from batch_pipelines.engine.rejects import Reject

NUMBER, NAME = column_of("integer", "number"), column_of("text", "name")
TABLE = table_of(NUMBER, NAME)
TEXTS = table_of(*(column_of("text", name) for name in ("a", "b", "c")))
SHARED_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def read(path: Path, table: TableInfo = TABLE, file_format: str = "csv") -> list[Chunk]:
    """Read a file, and check what holds of any reading: chunks and records follow each other."""
    chunks = list(read_chunks(path, file_format, table))
    assert [chunk.index for chunk in chunks] == list(range(len(chunks)))
    content, first = path.read_bytes(), 1
    for chunk in chunks:
        numbers = sorted([*chunk.records.tolist(), *(each.record for each in chunk.rejects)])
        assert numbers == list(range(first, first + len(numbers)))
        assert numbers
        first += len(numbers)
        assert list(chunk.records) == sorted(chunk.records)
        assert chunk.first_record == (chunk.records[0] if chunk.rows else 0)
        assert all(len(array) == chunk.rows for array in chunk.arrays)
        for each in chunk.rejects:
            assert each.file_name == path.name
            assert each.breaches
            if each.offset is not None:
                assert content[each.offset :].startswith(each.raw)
                assert each.line == len(content[: each.offset].splitlines()) + 1
    return chunks


def rejects(chunks: list[Chunk]) -> list[Reject]:
    return list(chain.from_iterable(chunk.rejects for chunk in chunks))


def rows(chunks: list[Chunk]) -> list[tuple[object, ...]]:
    return [
        row
        for chunk in chunks
        for row in zip(*(array.to_pylist() for array in chunk.arrays), strict=True)
    ]


def csv_rows(
    folder: Path, content: str | bytes, table: TableInfo = TABLE
) -> list[tuple[object, ...]]:
    found = csv_chunks(folder, content, table)
    assert not rejects(found)
    return rows(found)


def csv_chunks(folder: Path, content: str | bytes, table: TableInfo = TABLE) -> list[Chunk]:
    path = folder / "a.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read(path, table)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block holds a few records only."""
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 100)
    monkeypatch.setattr(pieces, "BATCH_ROWS", 7)


# CSV


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param("number,name\n1,a\n2,b\n", [(1, "a"), (2, "b")], id="as usual"),
        pytest.param("name,number\na,1\n", [("a", 1)], id="columns in another order"),
        pytest.param("number,name\n1,a\n2,b", [(1, "a"), (2, "b")], id="no line end at the end"),
        pytest.param("number,name\r\n1,a\r\n2,b\r\n", [(1, "a"), (2, "b")], id="CRLF"),
        pytest.param("number,name\r1,a\r2,b\r", [(1, "a"), (2, "b")], id="CR"),
        pytest.param("\ufeffnumber,name\n1,a\n", [(1, "a")], id="a byte order mark"),
        pytest.param('\ufeff"number","name"\n1,a\n', [(1, "a")], id="and quotes behind it"),
        pytest.param("\n\nnumber,name\n\n1,a\n\n\n2,b\n\n", [(1, "a"), (2, "b")], id="empty lines"),
        pytest.param("\r\rnumber,name\r\r1,a\r", [(1, "a")], id="empty lines that end in CR"),
        pytest.param(
            "number,name\r\n1,a\r2,b\n\r3,c", [(1, "a"), (2, "b"), (3, "c")], id="all ends"
        ),
        pytest.param("number,name\n", [], id="a header alone"),
        pytest.param("number,name", [], id="without a line end"),
        pytest.param("number,name\n\n\n", [], id="and empty lines"),
        pytest.param('number,name\n,\n1,""\n', [(None, None), (1, "")], id="nothing and empty"),
        pytest.param('number,name\n"1","a"\n', [(1, "a")], id="quotes"),
        pytest.param('number,name\n1,"a""b"\n', [(1, 'a"b')], id="a quote"),
        pytest.param(
            'number,name\n1,"a\nb,\r\nc"\n', [(1, "a\nb,\r\nc")], id="line ends in quotes"
        ),
        pytest.param("number,name\n1, a \n", [(1, " a ")], id="space belongs to a text"),
        pytest.param("number,name\n1,NULL\n", [(1, "NULL")], id="no word means null"),
        pytest.param("number,name\n1,é中😀\n", [(1, "é中😀")], id="beyond ASCII"),
    ],
)
def test_known_files(tmp_path: Path, content: str, expected: list[tuple[object, ...]]) -> None:
    assert csv_rows(tmp_path, content) == expected


@pytest.mark.parametrize("name", ["na\nme", "na\rme", 'na"\r\n"me', "na,me"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_name_may_hold_what_ends_a_line(tmp_path: Path, name: str, end: str) -> None:
    table = table_of(NUMBER, column_of("text", name))
    content = end.join(['"number",' + quoted(name), "1,a", "x,b", ""])
    (chunk,) = csv_chunks(tmp_path, content, table)
    assert (rows([chunk]), [each.record for each in chunk.rejects]) == ([(1, "a")], [2])


def test_a_byte_order_mark_in_a_value_belongs_to_it(tmp_path: Path) -> None:
    """Given a first record or block that begins like a file with a mark, its value keeps it."""
    table = table_of(NAME, NUMBER)
    content = "name,number\n" + "\ufeffa,1\n" * 3
    with patch.object(blocks, "BLOCK_BYTES", 7):
        assert csv_rows(tmp_path, content, table) == [("\ufeffa", 1)] * 3


@SHARED_FOLDER
@given(
    written=st.lists(st.tuples(FIELDS, FIELDS, FIELDS), max_size=30),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    last_end=st.booleans(),
)
def test_every_record_is_read_as_python_reads_it(
    tmp_path: Path, small_blocks: None, written: list[tuple[str, ...]], end: str, *, last_end: bool
) -> None:
    lines = [",".join(map(quoted, row)) for row in [("a", "b", "c"), *written]]
    content = end.join(lines) + (end if last_end else "")
    by_python = csv.reader(io.StringIO(content, newline=""), strict=True)
    assert [tuple(row) for row in by_python][1:] == written
    # Nothing between two commas is no value, which Python does not tell from an empty one.
    found = csv_rows(tmp_path, content, TEXTS)
    assert found == [tuple(field or None for field in row) for row in written]


WORDS = st.text("0123456789+-.eExX :TZ\\{}abcinfINFNatru\t\0é", min_size=1, max_size=12)


@SHARED_FOLDER
@given(
    kind=st.sampled_from([*OIDS, "numeric(10,2)"]),
    text=st.sampled_from([text for texts in REFUSED.values() for text in texts]) | WORDS,
)
def test_reading_while_parsing_is_as_strict_as_converting_afterwards(
    tmp_path: Path, kind: str, text: str
) -> None:
    """Given any text in a column of any type, both of our ways to read it say the same."""
    column = column_of(kind)
    written = 'c,name\n"{}",x\n'.format(text.replace('"', '""'))
    (chunk,) = csv_chunks(tmp_path, written, table_of(column, NAME))
    array, wrong = to_wire(pa.array([text.encode()], pa.binary()), column, written=True)
    # As text, because NaN is not equal to itself.
    assert str(chunk.arrays[0]) == str(array if not wrong else array.slice(1))
    assert [each.breaches for each in chunk.rejects] == [(each,) for each in wrong.values()]


TWO = table_of(column_of("text", "a"), column_of("text", "b"))


@SHARED_FOLDER
@given(content=CONTENTS, size=st.integers(1, 60))
def test_every_record_of_any_file_is_a_row_or_a_reject(
    tmp_path: Path, content: bytes, size: int
) -> None:
    """Given any bytes behind a header, each record of the rule is where it belongs, and says why."""
    with patch.object(blocks, "BLOCK_BYTES", size):
        chunks = csv_chunks(tmp_path, b"a,b\n" + content, TWO)
    expected_rows: dict[int, tuple[str | None, ...]] = {}
    expected_rejects: dict[int, tuple[bytes, list[str]]] = {}
    for number, record in enumerate(oracle.records(content), 1):
        raw = content[record.start : record.end]
        values = [oracle.value(field) for field in record.fields or ()]
        if len(values) != 2:
            expected_rejects[number] = (raw, [BAD_FORMAT])
        elif bad := [BAD_ENCODING for each in values if each and not is_text(each)]:
            expected_rejects[number] = (raw, bad)
        else:
            expected_rows[number] = tuple(None if v is None else v.decode() for v in values)
    numbers = [number for chunk in chunks for number in chunk.records.tolist()]
    assert dict(zip(numbers, rows(chunks), strict=True)) == expected_rows
    assert {
        each.record: (each.raw, [breach.sqlstate for breach in each.breaches])
        for each in rejects(chunks)
    } == expected_rejects
    scan = CsvScan()
    scan.feed(b"a,b\n" + content)
    assert scan.records("a.csv") == len(expected_rows) + len(expected_rejects)


def is_text(value: bytes) -> bool:
    try:
        return "\0" not in value.decode()
    except UnicodeDecodeError:
        return False


@given(content=CONTENTS)
def test_python_reads_the_same_where_all_is_regular(content: bytes) -> None:
    """The rule itself, as the other tests have it, against a reader that is not ours."""
    found = oracle.records(content)
    if all(record.fields is not None for record in found):
        lines = io.StringIO(content.decode("latin-1"), newline="")
        by_python = [row for row in csv.reader(lines, strict=True) if row]
        assert by_python == [
            [(oracle.value(field) or b"").decode("latin-1") for field in record.fields or ()]
            for record in found
        ]


RECORDS = 60  # in some twenty blocks of a hundred bytes


def numbered(place: int, wrong: str) -> str:
    """A file with quoted line ends and empty lines, one record of which is wrong."""
    lines = [
        wrong if record == place else f'{record},"line\n{record}"\n' + "\n" * (record % 3)
        for record in range(1, RECORDS + 1)
    ]
    return "number,name\n" + "".join(lines)


@pytest.mark.parametrize("place", [1, 2, 31, 59, 60])
@pytest.mark.parametrize(
    ("wrong", "sqlstate", "problem"),
    [
        ("geheim,x\n", BAD_VALUE, ", column number: is not a valid integer"),
        ("5000000000,x\n", OUT_OF_RANGE, ", column number: does not fit into integer"),
        (",x\n", NOT_NULL, ", column number: has no value, and the table needs one there"),
        ("0x10,x\n", BAD_VALUE, ", column number: is not a valid integer"),
        ('1,"a\0b"\n', BAD_ENCODING, ", column name: holds a NUL, which PostgreSQL's text cannot"),
        ("1,caf\udce9\n", BAD_ENCODING, ", column name: is not UTF-8"),
        ("geheim\n", BAD_FORMAT, ": 1 fields where the header has 2"),
        ("1,geheim,3\n", BAD_FORMAT, ": 3 fields where the header has 2"),
        (" \n", BAD_FORMAT, ": 1 fields where the header has 2"),
        ("1,\udcff,3\n", BAD_FORMAT, ": 3 fields where the header has 2"),
        (
            '1,"geheim\n', BAD_FORMAT,
            ": a quote is out of place or not closed; a quoted field has to end with a quote",
        ),
    ],
)  # fmt: skip
def test_a_wrong_record_is_set_aside_under_its_own_number(
    tmp_path: Path, small_blocks: None, place: int, wrong: str, sqlstate: str, problem: str
) -> None:
    table = table_of(column_of("integer", "number", not_null=True), NAME)
    content = numbered(place, wrong).encode("utf-8", "surrogateescape")
    chunks = csv_chunks(tmp_path, content, table)
    (reject,) = rejects(chunks)
    assert str(reject) == f"a.csv, record {place} (line {reject.line}){problem}"
    assert reject.raw == wrong.encode("utf-8", "surrogateescape")
    (breach,) = reject.breaches
    assert (breach.sqlstate, breach.constraint) == (sqlstate, None)
    assert rows(chunks) == [
        (record, f"line\n{record}") for record in range(1, RECORDS + 1) if record != place
    ]


def test_a_record_may_be_wrong_in_several_columns(tmp_path: Path) -> None:
    content = b"number,name\n\n1,a\ngeheim,caf\xe9\n"
    (reject,) = rejects(csv_chunks(tmp_path, content))
    assert (reject.record, reject.line, reject.offset) == (2, 4, 17)
    assert [(each.column, each.sqlstate) for each in reject.breaches] == [
        ("number", BAD_VALUE), ("name", BAD_ENCODING),
    ]  # fmt: skip
    assert str(reject) == "a.csv, record 2 (line 4), column number: is not a valid integer"


@pytest.mark.parametrize(
    "wrong", [b"\xff\n", b"1\n", b"1,2,3\n", b'"x\n', b'a"\n', b"\xff,\xff\n", b"x,y\n"]
)
def test_all_records_may_be_wrong(tmp_path: Path, wrong: bytes) -> None:
    for content in (b"number,name\n" + wrong * 3, b"number,name\n" + wrong * 3 + wrong.rstrip()):
        chunks = csv_chunks(tmp_path, content)
        assert rows(chunks) == []
        assert {each.raw for each in rejects(chunks)} <= {wrong, wrong.rstrip()}
        scan = CsvScan()
        scan.feed(content)
        assert (
            len(rejects(chunks))
            == scan.records("a.csv")
            == content.count(b"\n") - 1 + (not content.endswith(b"\n"))
        )


def test_infinity_may_be_written_and_not_be_the_result_of_overflow(
    tmp_path: Path, small_blocks: None
) -> None:
    table = table_of(column_of("double precision", "number"), NAME)
    fine = "number,name\n" + "1.5,x\n" * 40 + "inf,x\n" + "2.5,x\n" * 40
    found = [number for number, _ in csv_rows(tmp_path, fine, table)]
    assert found == [1.5] * 40 + [float("inf")] + [2.5] * 40
    (reject,) = rejects(csv_chunks(tmp_path, fine + "1e999,x\n" + "2.5,x\n" * 40, table))
    assert reject.record == 82
    assert reject.breaches[0].sqlstate == OUT_OF_RANGE


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "the file is empty; expected a header line"),
        (b"\n\r\n", "the file is empty; expected a header line"),
        (b"\xef\xbb\xbf", "the file is empty; expected a header line"),
        (b"n\xfcmber,name\n1,a\n", "the header is not UTF-8 CSV"),
        (b'"number,name\n1,a\n', "the header is not UTF-8 CSV"),
        (b'"number"x,name\n1,a\n', "the header is not UTF-8 CSV"),
        (b'num"ber,"name\n"\n1,a\n', "the header is not UTF-8 CSV"),
        (b"number," + b"x" * 1_000_000 + b"\n", "the header is not UTF-8 CSV"),
    ],
)
def test_a_file_without_a_readable_header_is_refused(
    tmp_path: Path, content: bytes, problem: str
) -> None:
    with pytest.raises(DeliveryError, match=problem):
        csv_rows(tmp_path, content)


def test_columns_must_fit_the_table(tmp_path: Path) -> None:
    with pytest.raises(
        FeedError, match=r"^a\.csv: column 'nmae' is not in public\.t \(is it 'name'"
    ):
        csv_rows(tmp_path, "number,nmae\n1,a\n")
    with pytest.raises(
        FeedError, match=r"^a\.csv: its columns fit public\.t with the delimiter ';'"
    ):
        csv_rows(tmp_path, "number;name\n1;a\n")


def test_a_record_may_be_long_but_not_endless(
    tmp_path: Path, small_blocks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "LONGEST", 100)
    long = "x" * 90
    assert csv_rows(tmp_path, f"number,name\n1,{long}\n2,{long}\n") == [(1, long), (2, long)]
    with pytest.raises(DeliveryError, match="a record is longer than"):
        csv_rows(tmp_path, f"number,name\n1,{'x' * 1000}\n")


# Parquet


def parquet_rows(
    folder: Path, content: pa.Table, table: TableInfo = TABLE, **more: object
) -> list[tuple[object, ...]]:
    path = folder / "a.parquet"
    pq.write_table(content, path, **more)
    return rows(read(path, table, "parquet"))


def test_parquet_is_read_in_order_whatever_its_row_groups(
    tmp_path: Path, small_blocks: None
) -> None:
    written = [(number, f"name {number}") for number in range(100)]
    numbers, names = zip(*written, strict=True)
    content = pa.table({"number": pa.array(numbers, pa.int64()), "name": names})
    assert parquet_rows(tmp_path, content, row_group_size=13) == written
    assert parquet_rows(tmp_path, content.select(["name", "number"])) == [
        (name, number) for number, name in written
    ]
    assert parquet_rows(tmp_path, content.slice(0, 0)) == []


def test_a_wrong_value_in_parquet_is_set_aside_under_its_own_number(
    tmp_path: Path, small_blocks: None
) -> None:
    numbers = [2**40 if record == 52 else record for record in range(1, 101)]
    content = pa.table({"number": numbers, "name": ["geheim"] * 100})
    path = tmp_path / "a.parquet"
    pq.write_table(content, path, row_group_size=13)
    chunks = read(path, TABLE, "parquet")
    assert [number for number, _ in rows(chunks)] == [n for n in range(1, 101) if n != 52]
    (reject,) = rejects(chunks)
    assert str(reject) == "a.parquet, record 52, column number: does not fit into integer"
    assert (reject.line, reject.offset) == (None, None)
    assert json.loads(reject.raw) == {"number": 2**40, "name": "geheim"}


@pytest.mark.parametrize(
    ("values", "raw"),
    [
        (BAD_UTF8.slice(1), b'"\xff\xfe"'),
        (BAD_UTF8.slice(1).dictionary_encode(), b'"\xff\xfe"'),
        (pa.array([1], pa.timestamp("ns")), b'"1970-01-01 00:00:00.000000001"'),
        (pa.array([2**62], pa.timestamp("us")), b'"<value out of range: 4611686018427387904>"'),
        (pa.array([-1], pa.int32()).view(pa.date32()), b'"1969-12-31"'),
        (pa.array([b"\0\xff"]), rb'"\\x00ff"'),
        (pa.array([Decimal("1.50")]), b'"1.50"'),
        (pa.array([[2**62]], pa.list_(pa.timestamp("us"))), None),
        (pa.array([None], pa.string()), b"null"),
        (pa.array(["x"], pa.string_view()), b'"x"'),
        (pa.array([{"a": [1, None]}]), b'{"a": [1, null]}'),
    ],
)
def test_a_record_of_parquet_is_kept_as_json_whatever_it_holds(
    tmp_path: Path, values: pa.Array, raw: bytes | None
) -> None:
    """Given values that Python or UTF-8 cannot hold, the reject still shows the record."""
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"number": [2**40], "name": values}), path)
    (reject,) = rejects(read(path, TABLE, "parquet"))
    assert reject.breaches[0].sqlstate == OUT_OF_RANGE
    if raw is not None:
        assert reject.raw == b'{"number": 1099511627776, "name": ' + raw + b"}"


def test_names_with_dots_are_names(tmp_path: Path) -> None:
    table = table_of(column_of("integer", "a"), column_of("text", "a.b"))
    assert parquet_rows(tmp_path, pa.table({"a": [1], "a.b": ["x"]}), table) == [(1, "x")]


def test_a_damaged_page_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    content = pa.table({"number": list(range(10_000)), "name": [str(n) * 5 for n in range(10_000)]})
    pq.write_table(content, path, compression="zstd")
    damaged = bytearray(path.read_bytes())
    damaged[4:200] = bytes(196)
    path.write_bytes(damaged)
    with pytest.raises(DeliveryError, match=r"a\.parquet: a page cannot be decoded"):
        read(path, TABLE, "parquet")


def test_what_is_no_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_text("number,name\n1,a\n")
    with pytest.raises(DeliveryError, match=r"a\.parquet: not a whole Parquet file"):
        read(path, TABLE, "parquet")


def test_parquet_columns_must_fit_the_table(tmp_path: Path) -> None:
    with pytest.raises(FeedError, match=r"^a\.parquet: column 'nmae' is not in public\.t"):
        parquet_rows(tmp_path, pa.table({"number": [1], "nmae": ["a"]}))
