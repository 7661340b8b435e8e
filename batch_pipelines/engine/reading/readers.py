"""Reading staged files as a stream of chunks, each column in its wire type; memory stays bounded."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from batch_pipelines.engine.catalog import match_columns
from batch_pipelines.engine.errors import DeliveryError, FeedError
from batch_pipelines.engine.formats import COLUMNAR, DEFAULT
from batch_pipelines.engine.reading.chunks import Refused, loaded
from batch_pipelines.engine.reading.columnar import (
    columnar_names,
    columnar_types,
    read_columnar,
    read_raw_columnar,
)
from batch_pipelines.engine.reading.csv_reader import csv_names, read_csv, read_raw_csv
from batch_pipelines.engine.reading.json_lines import read_raw_json_lines
from batch_pipelines.engine.reading.sniffing import other_format
from batch_pipelines.engine.type_families import TEXT, sql_type

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from batch_pipelines.engine.catalog import Column, TableInfo
    from batch_pipelines.engine.formats import Format
    from batch_pipelines.engine.reading.chunks import Chunk, Raw

JSON_LINES = "jsonl"


def file_types(path: Path, file_format: str, form: Format = DEFAULT) -> dict[str, str]:
    """Read which columns a file brings, before they are matched with a table.

    Args:
        path: The file, as `plain.readable` gives it.
        file_format: `csv`, `tsv` or one of `COLUMNAR`.
        form: How the file is written.

    Returns:
        The type that the file gives each column, by its name; none where its header cannot be read,
        of which `file_columns` says why.

    Raises:
        DeliveryError: It has no readable footer.
    """
    if file_format in COLUMNAR:
        return columnar_types(path, file_format)
    try:
        return dict.fromkeys(csv_names(path, form, file_format), TEXT)
    except DeliveryError:
        return {}


def file_columns(
    path: Path,
    file_format: str,
    table: TableInfo,
    form: Format = DEFAULT,
    refused: Collection[str] = (),
) -> tuple[Column, ...]:
    """Match a file's column names with its table.

    Args:
        path: The file, as `plain.readable` gives it.
        file_format: `csv`, `tsv` or one of `COLUMNAR`.
        table: The target table.
        form: How the file is written.
        refused: Names of its columns of which a value is refused.

    Returns:
        The target columns it brings, in the file's order.

    Raises:
        DeliveryError: The header cannot be read.
        FeedError: The columns do not fit the table; where they would in another format, it is named.
    """
    return loaded(_places(path, file_format, table, form, refused))


def read_chunks(
    path: Path,
    file_format: str,
    table: TableInfo,
    form: Format = DEFAULT,
    refused: Collection[str] = (),
) -> Iterator[Chunk]:
    """Read a file from its beginning to its end.

    Args:
        path: The file, as `plain.readable` gives it.
        file_format: `csv`, `tsv` or one of `COLUMNAR`.
        table: The target table.
        form: How the file is written.
        refused: Names of its columns of which a value is refused.

    Yields:
        Its records in order, with those that cannot be loaded set aside.

    Raises:
        DeliveryError: The file cannot be read on.
        FeedError: The columns do not fit the table.
    """
    places = _places(path, file_format, table, form, refused)
    if file_format in COLUMNAR:
        yield from read_columnar(path, file_format, places)
    else:
        yield from read_csv(path, places, form, file_format)


def read_raw(
    path: Path, file_format: str, records: Iterable[int], form: Format = DEFAULT
) -> Iterator[Raw]:
    """Read some records of a file as they were delivered.

    Args:
        path: The file, as `plain.readable` gives it.
        file_format: `csv`, `tsv` or one of `COLUMNAR`.
        records: Their numbers, from 1, in rising order; taken one by one.
        form: How the file is written.

    Yields:
        Line, byte offset and raw bytes of each.

    Raises:
        DeliveryError: The file cannot be read on.
    """
    if file_format in COLUMNAR:
        yield from read_raw_columnar(path, file_format, records)
    elif file_format == JSON_LINES:
        yield from read_raw_json_lines(path, records)
    else:
        yield from read_raw_csv(path, records, form, file_format)


def _places(
    path: Path, file_format: str, table: TableInfo, form: Format, refused: Collection[str]
) -> tuple[Column | None, ...]:
    """Find the target column of each of a file's columns; None for one that is not to be loaded."""
    if file_format in COLUMNAR:
        types = columnar_types(path, file_format)
        names = columnar_names(path, file_format)
        return _matched(table, names, form, path.name, refused, types)
    try:
        return _matched(table, csv_names(path, form, file_format), form, path.name, refused)
    except (DeliveryError, FeedError):

        def fits(names: Sequence[str]) -> bool:
            try:
                return bool(_matched(table, names, form, path.name))
            except FeedError:
                return False

        other = other_format(path, form, file_format, fits)
        if other is None:
            raise
        message = f"{path.name}: its columns fit {table.full_name} with {other}"
        raise FeedError(message) from None


def _matched(
    table: TableInfo,
    names: Sequence[str],
    form: Format,
    where: str,
    refused: Collection[str] = (),
    types: Mapping[str, str] = MappingProxyType({}),
) -> tuple[Column | None, ...]:
    wanted = [form.target_name(name) for name in names]
    to_load = [
        target
        for name, target in zip(names, wanted, strict=True)
        if target is not None and name not in refused
    ]
    given = {
        target: sql_type(types[name])
        for name, target in zip(names, wanted, strict=True)
        if target is not None and name in types
    }
    columns = iter(match_columns(table, to_load, where, given))
    if not to_load:
        message = (
            f"{where}: the feed's `ignore_columns` and `contract` leave no column to load. "
            "Leave fewer out, or deliver the table's columns."
        )
        raise FeedError(message)
    return tuple(
        None if target is None else Refused.named(target) if name in refused else next(columns)
        for name, target in zip(names, wanted, strict=True)
    )
