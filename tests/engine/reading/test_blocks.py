"""A CSV file is cut into the same records whatever the block, and nothing of it is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batch_pipelines.engine.errors import DeliveryError
from batch_pipelines.engine.reading import blocks, count
from batch_pipelines.engine.reading.blocks import Block, Dialect, read_blocks
from tests.engine.reading import oracle
from tests.engine.reading.oracle import CONTENTS, Record

if TYPE_CHECKING:
    from pathlib import Path

HEADER = b"a,b\n"
SHARED_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def cut(folder: Path, content: bytes, size: int, longest: int = blocks.LONGEST) -> list[Block]:
    """Read what follows a header in blocks of a size, and check that they are the whole of it."""
    path = folder / "a.csv"
    path.write_bytes(HEADER + content)
    with patch.object(blocks, "BLOCK_BYTES", size), patch.object(blocks, "LONGEST", longest):
        found = list(read_blocks(path, len(HEADER), 2, Dialect()))
    assert b"".join(block.content for block in found) == content
    place = len(HEADER)
    for block in found:
        assert block.offset == place
        place += len(block.content)
    return found


def seen(found: list[Block]) -> list[tuple[int, int, bytes, bool]]:
    """Where each record begins, on which line, what it is, and whether it is set aside."""
    return [
        (block.offset + start, line, block.raw(place), place in block.set_aside)
        for block in found
        for place, (start, line) in enumerate(
            zip(block.starts.tolist(), block.lines.tolist(), strict=True)
        )
    ]


def foretold(content: bytes, longest: int) -> list[tuple[int, int, bytes, bool]]:
    def one(record: Record) -> tuple[int, int, bytes, bool]:
        raw = content[record.start : record.end]
        return len(HEADER) + record.start, record.line + 1, raw, record.fields is None

    return [one(record) for record in oracle.records(content, longest)]


@SHARED_FOLDER
@given(content=CONTENTS, size=st.integers(1, 60))
def test_records_are_those_of_the_rule_whatever_the_block(
    tmp_path: Path, content: bytes, size: int
) -> None:
    expected = foretold(content, blocks.LONGEST)
    assert seen(cut(tmp_path, content, size)) == expected
    scan = count.CsvScan()
    scan.feed(HEADER + content)
    assert scan.records("a.csv") == len(expected)


@SHARED_FOLDER
@given(
    content=CONTENTS,
    size=st.integers(1, 60),
    longest=st.integers(1, 12),
    piece=st.integers(3, 20),
)
def test_where_a_missing_quote_is_given_up_does_not_depend_on_the_block(
    tmp_path: Path, content: bytes, size: int, longest: int, piece: int
) -> None:
    """Given few bytes in which a quote has to be closed, both readers find the same, or one says why."""
    expected = foretold(content, longest)
    assert counted(content, piece, longest) == len(expected)
    try:
        found = cut(tmp_path, content, size, longest)
    except DeliveryError as error:
        message = str(error)
    else:
        message = ""
        assert seen(found) == expected
    if message:
        assert "a record is longer than" in message
        assert any(len(raw) > longest for _, _, raw, _ in expected)


def test_both_readers_give_a_missing_quote_up_at_the_same_place() -> None:
    assert count.LONGEST_QUOTED == blocks.LONGEST


@pytest.mark.parametrize("inside", [b"x\ny,\nzw", b"\n" * 7, b'""""""x', b'x""""""', b'\n""""\n1'])
@pytest.mark.parametrize("before", [b"", b"1,", b"1,x\n2,", b'1"\n', b'"1"x\n"2",'])
@pytest.mark.parametrize("after", [b"\n3,y\n", b",y\n", b"", b"\n", b'\n"x\n'])
def test_a_quoted_field_may_be_exactly_so_long(
    tmp_path: Path, inside: bytes, before: bytes, after: bytes
) -> None:
    """Given a limit around a field's length, both readers draw the line at the same byte."""
    content = before + b'"' + inside + b'"' + after
    for longest in range(len(inside), len(inside) + 5):
        expected = foretold(content, longest)
        for size in range(1, len(content) + 2):
            assert counted(content, size, longest) == len(expected)
            try:
                found = seen(cut(tmp_path, content, size, longest))
            except DeliveryError:
                assert any(len(raw) > longest for _, _, raw, _ in expected)
            else:
                assert found == expected


def counted(content: bytes, size: int, longest: int) -> int:
    scan, whole = count.CsvScan(), HEADER + content
    with patch.object(count, "LONGEST_QUOTED", longest):
        scan.feed(HEADER)
        for place in range(len(HEADER), len(whole), size):
            scan.feed(whole[place : place + size])
        return scan.records("a.csv")


@pytest.mark.parametrize(
    ("content", "raws"),
    [
        pytest.param(b'1,"a\n2,b\n', [b'1,"a\n'], id="not closed"),
        pytest.param(b'1,"a\n2,b\n3,"c"\n', [b'1,"a\n'], id="closed by the next one that opens"),
        pytest.param(b'1,"a"x\n2,b\n', [b'1,"a"x\n'], id="more behind the quote"),
        pytest.param(b'1,5" pipe\n2,b\n', [b'1,5" pipe\n'], id="within a field"),
        pytest.param(b'1, "a"\n2,b\n', [b'1, "a"\n'], id="behind a blank"),
        pytest.param(b'1,"a\n"x,y\n2,b\n', [b'1,"a\n', b'"x,y\n'], id="over two lines"),
        pytest.param(b'"1\n2","a"x\n3,b\n', [b'"1\n2","a"x\n'], id="in a record of two lines"),
        pytest.param(b'1,"a\r\r\n2,b', [b'1,"a\r'], id="before an empty line"),
        pytest.param(b'1,"a', [b'1,"a'], id="at the end"),
        pytest.param(b'1,"a""', [b'1,"a""'], id="doubled at the end"),
    ],
)
def test_a_quote_out_of_place_costs_its_line(
    tmp_path: Path, content: bytes, raws: list[bytes]
) -> None:
    for size in range(1, len(content) + 2):
        found = seen(cut(tmp_path, content, size))
        assert [raw for _, _, raw, aside in found if aside] == raws


def test_a_block_does_not_end_in_quotes_that_hold_line_ends(tmp_path: Path) -> None:
    """Given a record of several quoted lines, it is whole wherever the block would end."""
    content = b'1,a\n2,"b\nc""\nd","e\nf"\n3,g\n'
    for size in range(1, len(content) + 2):
        assert [raw for _, _, raw, _ in seen(cut(tmp_path, content, size))] == [
            b"1,a\n",
            b'2,"b\nc""\nd","e\nf"\n',
            b"3,g\n",
        ]


def test_other_delimiters_and_quotes(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"1;'a;\n''b'\n2;x,\"y\n3;'c\n")
    (block,) = read_blocks(path, 0, 1, Dialect(b";", b"'"))
    assert [block.raw(place) for place in range(3)] == [b"1;'a;\n''b'\n", b'2;x,"y\n', b"3;'c\n"]
    assert block.set_aside.tolist() == [2]
