"""Files are read as a stream of chunks: every record, in order, under its own number."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batch_pipelines.engine.errors import DeliveryError, FeedError
from batch_pipelines.engine.reading import readers
from batch_pipelines.engine.reading.convert import to_wire
from batch_pipelines.engine.reading.readers import Chunk, read_chunks
from tests.engine.reading.test_convert import REFUSED
from tests.engine.reading.test_count import quoted
from tests.support_columns import OIDS, column_of, table_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from batch_pipelines.engine.catalog import TableInfo

NUMBER, NAME = column_of("integer", "number"), column_of("text", "name")
TABLE = table_of(NUMBER, NAME)
TEXTS = table_of(*(column_of("text", name) for name in ("a", "b", "c")))


def read(path: Path, table: TableInfo = TABLE, file_format: str = "csv") -> list[Chunk]:
    """Read a file, and check what holds of any reading: chunks and records follow each other."""
    chunks = list(read_chunks(path, file_format, table))
    assert [chunk.index for chunk in chunks] == list(range(len(chunks)))
    first_record = 1
    for chunk in chunks:
        assert chunk.first_record == first_record
        assert all(len(array) == chunk.rows > 0 for array in chunk.arrays)
        first_record += chunk.rows
    return chunks


def rows(chunks: list[Chunk]) -> list[tuple[object, ...]]:
    return [
        row
        for chunk in chunks
        for row in zip(*(array.to_pylist() for array in chunk.arrays), strict=True)
    ]


def csv_rows(
    folder: Path, content: str | bytes, table: TableInfo = TABLE
) -> list[tuple[object, ...]]:
    path = folder / "a.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return rows(read(path, table))


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block holds a few records only."""
    monkeypatch.setattr(readers, "CSV_BLOCK_BYTES", 100)
    monkeypatch.setattr(readers, "PARQUET_BATCH_ROWS", 7)


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
        pytest.param("number,name\n", [], id="a header alone"),
        pytest.param("number,name", [], id="without a line end"),
        pytest.param("number,name\n\n\n", [], id="and empty lines"),
        pytest.param('number,name\n,\n1,""\n', [(None, None), (1, "")], id="nothing and empty"),
        pytest.param('number,name\n"1","a"\n', [(1, "a")], id="quotes"),
        pytest.param('number,name\n1,"a""b"\n', [(1, 'a"b')], id="a quote"),
        pytest.param(
            'number,name\n1,"a\nb,\r\nc"\n', [(1, "a\nb,\r\nc")], id="line ends in quotes"
        ),
        pytest.param('"number","na\nme"\n1,a\n', None, id="a name with a line end"),
        pytest.param("number,name\n1, a \n", [(1, " a ")], id="space belongs to a text"),
        pytest.param("number,name\n1,NULL\n", [(1, "NULL")], id="no word means null"),
        pytest.param("number,name\n1,é中😀\n", [(1, "é中😀")], id="beyond ASCII"),
    ],
)
def test_known_files(
    tmp_path: Path, content: str, expected: list[tuple[object, ...]] | None
) -> None:
    if expected is None:
        table = table_of(NUMBER, column_of("text", "na\nme"))
        assert csv_rows(tmp_path, content, table) == [(1, "a")]
    else:
        assert csv_rows(tmp_path, content) == expected


FIELDS = st.text('ab",;\n\r é中\u2028', max_size=8)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
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


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from([*OIDS, "numeric(10,2)"]),
    text=st.sampled_from([text for texts in REFUSED.values() for text in texts]) | WORDS,
)
def test_reading_while_parsing_is_as_strict_as_converting_afterwards(
    tmp_path: Path, kind: str, text: str
) -> None:
    """Given any text in a column of any type, both of our ways to read it say the same."""
    column = column_of(kind)
    path = tmp_path / "a.csv"
    path.write_bytes('c,name\n"{}",x\n'.format(text.replace('"', '""')).encode())
    raw = pa.array([text.encode()], pa.binary())
    table = table_of(column, NAME)
    # As text, because NaN is not equal to itself.
    assert outcome(lambda: read(path, table)[0].arrays[0]) == outcome(
        lambda: to_wire(raw, column, path.name, 1, written=True)
    )


def outcome(reading: Callable[[], pa.Array]) -> str:
    try:
        return str(reading())
    except DeliveryError as error:
        return str(error)


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
    ("wrong", "problem"),
    [
        ("geheim,x\n", "column number: is not a valid integer"),
        (",x\n", "column number: has no value, and the table needs one there"),
        ("0x10,x\n", "column number: is not a valid integer"),
        ('1,"a\0b"\n', "column name: is not a valid text"),
    ],
)
def test_a_wrong_value_is_found_under_its_own_number(
    tmp_path: Path, small_blocks: None, place: int, wrong: str, problem: str
) -> None:
    table = table_of(column_of("integer", "number", not_null=True), NAME)
    with pytest.raises(DeliveryError) as error:
        csv_rows(tmp_path, numbered(place, wrong), table)
    assert str(error.value) == (
        f"a.csv, record {place}, {problem}. Correct the file and deliver it again."
    )


@pytest.mark.parametrize("place", [1, 2, 31, 59, 60])
@pytest.mark.parametrize(("wrong", "fields"), [("geheim\n", 1), ("1,geheim,3\n", 3), (" \n", 1)])
def test_a_record_with_another_number_of_fields_is_found(
    tmp_path: Path, small_blocks: None, place: int, wrong: str, fields: int
) -> None:
    with pytest.raises(DeliveryError) as error:
        csv_rows(tmp_path, numbered(place, wrong))
    assert str(error.value) == (
        f"a.csv, record {place}: {fields} fields where the header has 2. "
        "Correct the file and deliver it again."
    )


def test_what_was_read_before_a_wrong_record_is_not_read_twice(
    tmp_path: Path, small_blocks: None
) -> None:
    path = tmp_path / "a.csv"
    path.write_text(numbered(50, "geheim,x\n"))
    seen: list[Chunk] = []
    with pytest.raises(DeliveryError, match="record 50"):
        seen.extend(read_chunks(path, "csv", TABLE))
    numbers = [number for number, _ in rows(seen)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) > 40


def test_infinity_may_be_written_and_not_be_the_result_of_overflow(
    tmp_path: Path, small_blocks: None
) -> None:
    table = table_of(column_of("double precision", "number"), NAME)
    fine = "number,name\n" + "1.5,x\n" * 40 + "inf,x\n" + "2.5,x\n" * 40
    found = [number for number, _ in csv_rows(tmp_path, fine, table)]
    assert found == [1.5] * 40 + [float("inf")] + [2.5] * 40
    with pytest.raises(DeliveryError, match="record 82, column number"):
        csv_rows(tmp_path, fine + "1e999,x\n" + "2.5,x\n" * 40, table)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "the file is empty; expected a header line"),
        (b"\n\r\n", "the file is empty; expected a header line"),
        (b"\xef\xbb\xbf", "the file is empty; expected a header line"),
        (b"n\xfcmber,name\n1,a\n", "the header is not UTF-8 CSV"),
        (b'"number,name\n1,a\n', "the header is not UTF-8 CSV"),
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
    with pytest.raises(FeedError, match=r"^a\.csv: column 'number;name' is not in"):
        csv_rows(tmp_path, "number;name\n1;a\n")


def test_a_record_may_be_long_but_not_endless(tmp_path: Path, small_blocks: None) -> None:
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


def test_a_wrong_value_in_parquet_is_found_under_its_own_number(
    tmp_path: Path, small_blocks: None
) -> None:
    numbers = [2**40 if record == 52 else record for record in range(1, 101)]
    content = pa.table({"number": numbers, "name": ["geheim"] * 100})
    with pytest.raises(DeliveryError) as error:
        parquet_rows(tmp_path, content, row_group_size=13)
    assert str(error.value) == (
        "a.parquet, record 52, column number: is not a valid integer. "
        "Correct the file and deliver it again."
    )


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
