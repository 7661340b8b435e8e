r"""An escape before a letter or a digit: a null word such as `\N`, or nothing that can be read.

Where a dialect has an escape, what follows it stands for itself. No program writes it before a letter
then; but in dumps of databases `\n` is a line end and `\0` a NUL. So there are two readings, and a
record with one of these is set aside. What is a null word of the feed is put as another word, one that
stands nowhere else, before a parser can take the escape away.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from batch_pipelines.engine.reading.blocks import Block

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batch_pipelines.engine.reading.blocks import Dialect


def doubtful(block: Block, words: Sequence[str]) -> list[int]:
    """Find the records with an escape that has two readings and is not a null word.

    Before a letter or digit, or before a CRLF outside quotes, or with nothing behind it.

    Args:
        block: Some records.
        words: The null words that are an escape and a letter.

    Returns:
        Their indices among all records of the block, rising; none of what is set aside anyway.
    """
    dialect, content = block.dialect, block.regular
    if not dialect.escape or dialect.escape not in content:
        return []
    masked = _masked_words(content, dialect, words)[1]
    escape = re.escape(dialect.escape)
    found = [each.start() for each in re.finditer(escape + rb"(?:[0-9A-Za-z]|\Z)", masked)]
    # Of a CRLF it would be the half that belongs to the field; in quotes both halves do.
    ends = (each.start() for each in re.finditer(escape + rb"\r\n", content))
    found += _outside_quotes([at for at in ends if masked[at + 1] == ord(".")], masked, dialect)
    if not found:
        return []
    starts = Block(content, 0, 1, dialect).starts
    which = np.unique(np.searchsorted(starts, found, side="right") - 1)
    regular = np.delete(np.arange(len(block.starts)), block.set_aside if block.malformed else [])
    places: list[int] = regular[which].tolist()
    return places


def put_words(content: bytes, dialect: Dialect, words: Sequence[str]) -> tuple[bytes, str]:
    """Put a word without an escape for each null word.

    Args:
        content: Whole records, none of them malformed.
        dialect: How fields are written; with an escape.
        words: The null words that are an escape and a letter.

    Returns:
        The same records with that word, and the word.
    """
    word = b"\x1aN"
    while word in content:
        word += b"N"
    places, _ = _masked_words(content, dialect, words)
    ends = [0, *(place + 2 for place in places)]
    parts = [content[s:e] for s, e in zip(ends, [*places, len(content)], strict=True)]
    return word.join(parts), word.decode()


def _masked_words(
    content: bytes, dialect: Dialect, words: Sequence[str]
) -> tuple[list[int], bytes]:
    """Find null words, and mask them like all else that is escaped."""
    masked = dialect.masked(content)
    if not words:
        return [], masked
    ends = re.escape(dialect.delimiter) + rb"\r\n"
    written = b"|".join(re.escape(word.encode()) for word in words)
    pattern = rb"(?<![^" + ends + rb"])(?:" + written + rb")(?![^" + ends + rb"])"
    places = [found.start() for found in re.finditer(pattern, masked)]
    places = _outside_quotes(places, masked, dialect)
    data = bytearray(masked)
    for place in places:
        data[place : place + 2] = b".."
    return places, bytes(data)


def _outside_quotes(places: list[int], masked: bytes, dialect: Dialect) -> list[int]:
    if not dialect.quote or dialect.quote not in masked:
        return places
    quotes = np.flatnonzero(np.frombuffer(masked, np.uint8) == dialect.quote[0])
    return [place for place in places if np.searchsorted(quotes, place) % 2 == 0]
