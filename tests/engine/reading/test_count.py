"""The independent count of records agrees with Python's csv module, whatever the pieces."""

from __future__ import annotations

import csv
import io
import itertools
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_pipelines.engine.errors import DeliveryError
from batch_pipelines.engine.reading.count import CsvScan, parquet_records

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def scan(*pieces: bytes) -> int:
    counter = CsvScan()
    for piece in pieces:
        counter.feed(piece)
    return counter.records("a.csv")


def by_python(content: bytes) -> int:
    rows = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
    return sum(1 for row in rows if row) - 1


# Fields with everything that could be mistaken for the end of a record.
FIELDS = st.text('ab",;\n\r \té中\u2028', max_size=8)
ROWS = st.lists(st.lists(FIELDS, min_size=1, max_size=4), max_size=12)


def quoted(field: str, *, always: bool = False) -> str:
    """Write a field as RFC 4180 has it: in quotes where it must be."""
    if always or set('",\r\n') & set(field):
        return '"{}"'.format(field.replace('"', '""'))
    return field


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """A CSV file: quoted where it must be or everywhere, empty lines, any line end, cut or not."""
    always = draw(st.booleans())
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    lines = [",".join(quoted(field, always=always) for field in row) for row in draw(ROWS)]
    empty = st.sampled_from([0, 0, 0, 1, 3])
    text = "".join(line + end + end * draw(empty) for line in ["a,b", *lines])
    return (text.removesuffix(end) if draw(st.booleans()) else text).encode()


@given(content=files(), cuts=st.lists(st.integers(3, 200), max_size=5))
def test_it_counts_what_python_reads_however_the_file_is_cut(
    content: bytes, cuts: Sequence[int]
) -> None:
    places = [0, *sorted(min(cut, len(content)) for cut in cuts), len(content)]
    pieces = [content[a:b] for a, b in itertools.pairwise(places)]
    assert scan(*pieces) == by_python(content)
    assert scan(*(content[place : place + 1] for place in range(len(content)))) == by_python(
        content
    )


@pytest.mark.parametrize(
    ("content", "records"),
    [
        pytest.param(b"a", 0, id="a header alone, without line end"),
        pytest.param(b"a\n", 0, id="a header alone"),
        pytest.param(b"a\n1", 1, id="without a last line end"),
        pytest.param(b"a\n1\n", 1, id="with one"),
        pytest.param(b"\n\na\n\n1\n\n\n2\n\n", 2, id="empty lines are no records"),
        pytest.param(b'a\n""\n', 1, id="an empty field in quotes is one"),
        pytest.param(b"a\n \n", 1, id="and so is a space"),
        pytest.param(b"a,b\n,\n,\n", 2, id="and fields without a value"),
        pytest.param(b'a\n"1\n2"\n3\n', 2, id="a line end in quotes"),
        pytest.param(b'a\n"1""\n2"\n3\n', 2, id="after a doubled quote"),
        pytest.param(b'a\n""""\n"\n"\n', 2, id="quotes of quotes"),
        pytest.param(b"a\r\n1\r\n2\r\n", 2, id="CRLF"),
        pytest.param(b"a\r1\r2\r", 2, id="CR"),
        pytest.param(b"a\n1\r\n2\r3", 3, id="all of them"),
        pytest.param(b"\xef\xbb\xbfa\n1\n", 1, id="a byte order mark"),
        pytest.param(b"\xef\xbb\xbf\r\na\n1\n", 1, id="and an empty line behind it"),
    ],
)
def test_known_files(content: bytes, records: int) -> None:
    assert scan(content) == records
    assert by_python(content) == records


@pytest.mark.parametrize("content", [b"", b"\n", b"\r\n\r\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"])
def test_a_file_without_a_header_is_refused(content: bytes) -> None:
    with pytest.raises(DeliveryError, match=r"a\.csv: the file is empty; expected a header line"):
        scan(content)


@pytest.mark.parametrize("content", [b'a\n"1', b'a\n"1""', b'a\n1\n"2\n3\n', b'a\n5" pipe\n'])
def test_a_file_that_ends_inside_quotes_is_refused(content: bytes) -> None:
    with pytest.raises(DeliveryError, match=r"a\.csv: the file ends inside a quoted field"):
        scan(content)


def test_parquet_says_it_in_its_footer(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": list(range(1000))}), path, row_group_size=300)
    assert parquet_records(path) == 1000
    pq.write_table(pa.table({"a": pa.array([], pa.int32())}), path)
    assert parquet_records(path) == 0


@pytest.mark.parametrize("damage", ["cut", "no Parquet", "empty"])
def test_a_parquet_file_without_a_footer_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": [1]}), path)
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[:-5], "no Parquet": b"a\n1\n", "empty": b""}[damage])
    with pytest.raises(DeliveryError, match=r"a\.parquet: not a whole Parquet file"):
        parquet_records(path)
