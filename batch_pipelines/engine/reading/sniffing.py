"""Sniffing: in which other format a file's header would fit. It is reported, never taken."""

from __future__ import annotations

import csv
import itertools
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from batch_pipelines.engine.formats import Format

_DELIMITERS: Final = (",", ";", "\t", "|")
# Of the encodings with one byte a sign, a header can tell none from the others.
_ENCODINGS: Final = ("utf-8", "utf-16-le", "utf-16-be", "cp1252", "latin-1")
_PREAMBLES: Final = 20
_HEAD_BYTES: Final = 65_536


def other_format(
    path: Path, form: Format, file_format: str, fits: Callable[[Sequence[str]], bool]
) -> str | None:
    """Look for a format in which a header would be right, among what the feed does not say.

    Args:
        path: The file, of which the header is not right.
        form: How the feed says that it is written.
        file_format: `csv` or `tsv`.
        fits: Says whether column names are right.

    Returns:
        What would have to be different, and what to do; or None where nothing is found.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    own = form.signs(file_format)[0].decode()
    for encoding, delimiter, preamble in _candidates(form, own):
        lines = _lines(head, encoding)
        line = next((line for line in lines[preamble:] if line), None)
        if line is None:
            continue
        try:
            names = next(
                csv.reader(
                    [line],
                    delimiter=delimiter,
                    quotechar=form.quote,
                    quoting=csv.QUOTE_MINIMAL if form.quote else csv.QUOTE_NONE,
                )
            )
        except csv.Error:
            continue
        if fits(names):
            return _remedy(
                encoding=None if encoding == form.encoding else encoding,
                delimiter=None if delimiter == own else delimiter,
                preamble=None if preamble == form.preamble else preamble,
            )
    return None


def _candidates(form: Format, delimiter: str) -> Iterator[tuple[str, str, int]]:
    """Combine what is not set; first what differs least."""
    if form.header is not True:
        return
    told = form.model_fields_set
    encodings = [form.encoding] if "encoding" in told else [*_ENCODINGS]
    delimiters = [delimiter] if form.delimiter else [delimiter, *_DELIMITERS]
    preambles = [form.preamble] if "preamble" in told else [*range(_PREAMBLES)]
    for preamble, encoding, other in itertools.product(preambles, encodings, delimiters):
        yield encoding, other, preamble


def _lines(head: bytes, encoding: str) -> list[str]:
    try:
        text = head.decode(encoding)
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:
            return []
        text = head[: error.start].decode(encoding)
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _remedy(**other: str | int | None) -> str:
    found = {name: value for name, value in other.items() if value is not None}
    names = " and ".join(f"the {name} {value!r}" for name, value in found.items())
    # As YAML has it; what Python writes for a tab is, in double quotes, right there too.
    written = ", ".join(
        f"{name}: {value}" if isinstance(value, int) else f"{name}: {_quoted(value)}"
        for name, value in found.items()
    )
    return f"{names}: write `format: {{{written}}}` in the feed."


def _quoted(value: str) -> str:
    return repr(value) if value.isprintable() else f'"{value!r}"'.replace("'", "")
