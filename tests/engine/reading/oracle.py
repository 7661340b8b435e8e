"""The rule of CSV records byte by byte, as simple as it can be written; and files to try it on."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

from batch_pipelines.engine.reading.blocks import LONGEST


@dataclass(frozen=True)
class Record:
    """A record, from its first byte to its line end.

    Attributes:
        start: Where it begins.
        end: Where what follows begins.
        line: The physical line it begins on, from 1.
        fields: Its fields as they are written; None where one is malformed.
    """

    start: int
    end: int
    line: int
    fields: tuple[bytes, ...] | None


def records(content: bytes, longest: int = LONGEST) -> list[Record]:
    """Cut a file into records, the header among them.

    Args:
        content: The file, without a byte order mark.
        longest: How long a quoted field may be.
    """
    found, at, line = [], 0, 1
    while at < len(content):
        start = at
        if content[at] in b"\r\n":
            at = _after_line(content, at)
        else:
            at, fields = _record(content, at, longest)
            found.append(Record(start, at, line, fields))
        line += len(content[start:at].splitlines())
    return found


def _record(content: bytes, at: int, longest: int) -> tuple[int, tuple[bytes, ...] | None]:
    fields = []
    while True:
        start = at
        if content[at : at + 1] == b'"':
            at += 1
            while at < len(content) and (
                content[at] != ord('"') or content[at + 1 : at + 2] == b'"'
            ):
                at += 2 if content[at] == ord('"') else 1
            at += 1
            if at > len(content) or at - start > longest:
                return _after_line(content, start), None
        else:
            while at < len(content) and content[at] not in b',\r\n"':
                at += 1
        fields.append(content[start:at])
        if at == len(content) or content[at] in b"\r\n":
            return _after_line(content, at), tuple(fields)
        if content[at] != ord(","):
            return _after_line(content, start), None
        at += 1


def _after_line(content: bytes, at: int) -> int:
    while at < len(content) and content[at] not in b"\r\n":
        at += 1
    return at + 2 if content[at : at + 2] == b"\r\n" else min(at + 1, len(content))


def value(field: bytes) -> bytes | None:
    """Read a field as it is written: nothing is no value."""
    return field[1:-1].replace(b'""', b'"') if field.startswith(b'"') else field or None


def quoted(field: str, *, always: bool = False) -> str:
    """Write a field as RFC 4180 has it: in quotes where it must be."""
    if always or set('",\r\n') & set(field):
        return '"{}"'.format(field.replace('"', '""'))
    return field


PIECES = st.sampled_from(
    [
        b"a",
        b",",
        b'"',
        b"\r",
        b"\n",
        b" ",
        "é".encode(),
        b"\xff",
        b"\0",
        b'""',
        b',"',
        b'",',
        b'"\n',
    ]
)
# Fields with everything that could be mistaken for the end of a record.
FIELDS = st.text('ab",;\n\r \té中\u2028', max_size=8)


@st.composite
def written(draw: st.DrawFn) -> bytes:
    """Two columns as a program writes them: any line end, empty lines, quotes where needed or all."""
    always = draw(st.booleans())
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    rows = draw(st.lists(st.tuples(FIELDS, FIELDS), max_size=12))
    empty = st.sampled_from([0, 0, 0, 1, 3])
    text = "".join(
        ",".join(quoted(field, always=always) for field in row) + end + end * draw(empty)
        for row in rows
    )
    return (text.removesuffix(end) if draw(st.booleans()) else text).encode()


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """The same, damaged in a few places."""
    content = draw(written())
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(content)))
        content = (
            content[:place]
            + draw(PIECES | st.just(b""))
            + content[place + draw(st.integers(0, 2)) :]
        )
    return content


CONTENTS = st.lists(PIECES, max_size=40).map(b"".join) | mutated()
