"""JSON lines for the second reader: taken apart by msgspec, and not by the parser that loads.

DuckDB's own reader would round numbers to floats before anybody could ask for their text. So the values
are given to it as text, in a Parquet file.
"""

from __future__ import annotations

import codecs
from collections import defaultdict
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batch_pipelines.engine.errors import ValidationError
from batch_pipelines.engine.reading.blocks import BLOCK_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from batch_pipelines.engine.formats import Format
    from batch_pipelines.engine.routes import Route

_BLANK = b" \t\r\n"
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_NONE: npt.NDArray[np.int64] = np.empty(0, np.int64)


def rewrite(
    path: Path,
    target: Path,
    names: Sequence[str],
    form: Format,
    route: Route | None = None,
    left_out: npt.NDArray[np.int64] = _NONE,
) -> frozenset[str]:
    """Write the values of a table's records as text into a Parquet file.

    Args:
        path: The file of JSON lines.
        target: The Parquet file, with columns `c0`, `c1` ...
        names: The table's columns, in that order.
        form: How the lines are written.
        route: Which lines are the table's, where they say it.
        left_out: Numbers of the records that were set aside, rising.

    Returns:
        The table's names of all that any of the records brings.

    Raises:
        ValidationError: A record is no JSON object.
    """
    schema = pa.schema([(f"c{place}", pa.string()) for place in range(len(names))])
    schema = schema.append(pa.field("record", pa.int64()))
    brought: set[str] = set()
    with pq.ParquetWriter(target, schema) as writing:
        for part in _parts(path, form, route, left_out):
            columns: dict[str, list[object]] = defaultdict(list)
            for record, values in part:
                brought |= values.keys()
                columns["record"].append(record)
                for place, name in enumerate(names):
                    columns[f"c{place}"].append(values.get(name))
            writing.write_table(pa.Table.from_pydict(dict(columns), schema=schema))
    return frozenset(brought)


def _parts(
    path: Path, form: Format, route: Route | None, left_out: npt.NDArray[np.int64]
) -> Iterator[list[tuple[int, dict[str, str | None]]]]:
    """Give the records some at a time."""
    out, size = set(left_out.tolist()), 0
    part: list[tuple[int, dict[str, str | None]]] = []
    for record, line in _records(path):
        values = None if record in out else _values(path, line, form, route)
        if values is not None:
            part.append((record, values))
            size += len(line)
        if size >= BLOCK_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


def _records(path: Path) -> Iterator[tuple[int, bytes]]:
    record = 0
    with path.open("rb") as file:
        if file.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
            file.seek(0)
        for line in file:
            if line.strip(_BLANK):
                record += 1
                yield record, line


def _values(
    path: Path, line: bytes, form: Format, route: Route | None
) -> dict[str, str | None] | None:
    """Take a record apart; None where it is of another table."""
    try:
        members = {key: _text(bytes(raw)) for key, raw in _OBJECT.decode(line).items()}
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        # Of what it stumbled over nothing is repeated.
        message = (
            f"{path.name}: the second reader could not read the source. The rows are published "
        )
        raise ValidationError(message + "but not validated.") from None
    if route is not None and members.get(route.field) != route.match:
        return None
    own = {form.table_field, form.individual_field}
    return {
        name: value
        for key, value in members.items()
        if key not in own and (name := form.target_name(key)) is not None
    }


def _text(raw: bytes) -> str | None:
    if raw.startswith(b'"'):
        return msgspec.json.decode(raw, type=str)
    return None if raw == b"null" else raw.decode()
