"""The independent count agrees with Python's csv module and with the rule, whatever the pieces."""

from __future__ import annotations

import csv
import io
import itertools
from typing import TYPE_CHECKING
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_pipelines.engine.errors import DeliveryError
from batch_pipelines.engine.reading import count
from batch_pipelines.engine.reading.count import CsvScan
from batch_pipelines.engine.reading.footers import parquet_records
from tests.engine.reading.oracle import CONTENTS, records, written

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


@given(rows=written(), cuts=st.lists(st.integers(3, 200), max_size=5))
def test_it_counts_what_python_reads_however_the_file_is_cut(
    rows: bytes, cuts: Sequence[int]
) -> None:
    content = b"a,b\n" + rows
    places = [0, *sorted(min(cut, len(content)) for cut in cuts), len(content)]
    pieces = [content[a:b] for a, b in itertools.pairwise(places)]
    assert scan(*pieces) == by_python(content)
    assert scan(*(content[place : place + 1] for place in range(len(content)))) == by_python(
        content
    )


@pytest.mark.parametrize(
    ("content", "expected"),
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
def test_known_files(content: bytes, expected: int) -> None:
    assert scan(content) == expected
    assert by_python(content) == expected


@pytest.mark.parametrize("content", [b"", b"\n", b"\r\n\r\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"])
def test_a_file_without_a_header_is_refused(content: bytes) -> None:
    with pytest.raises(DeliveryError, match=r"a\.csv: the file is empty; expected a header line"):
        scan(content)


@given(content=CONTENTS, size=st.integers(1, 50), longest=st.integers(1, 60))
def test_quotes_out_of_place_are_counted_by_the_rule_however_the_file_is_cut(
    content: bytes, size: int, longest: int
) -> None:
    with patch.object(count, "LONGEST_QUOTED", longest):
        whole = b"a,b\n" + content
        pieces = [whole[:3], *(whole[at : at + size] for at in range(3, len(whole), size))]
        assert scan(*pieces) == scan(whole) == len(records(content, longest))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'a\n"1', 1),
        (b'a\n"1""', 1),
        (b'a\n1\n"2\n3\n', 3),
        (b'a\n5" pipe\n', 1),
        (b'a\n5" pipe\n6" pipe\n', 2),
        (b'a\n"1"x\n2\n', 2),
        (b'a,b\n1,"x\n2,"y\n', 2),
        (b'"a\n1\n', 1),
    ],
)
def test_a_quote_out_of_place_costs_its_line(content: bytes, expected: int) -> None:
    assert scan(content) == expected


def test_of_an_open_field_no_more_is_kept_than_it_may_be_long() -> None:
    """Given a quote that is never closed, memory stays bounded, and all lines are counted."""
    counter = CsvScan()
    counter.feed(b'a,b\n1,"')
    piece = b"2,x\n" * 250_000
    for _ in range(30):
        counter.feed(piece)
        assert len(counter._rest) <= count.LONGEST_QUOTED + 1
    assert counter.records("a.csv") == 30 * 250_000


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
