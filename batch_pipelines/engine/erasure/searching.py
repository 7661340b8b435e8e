"""The numbers of a person's records in a delivered file, found by the readers that load it.

What a reader cannot take apart is the person's where the value stands in it as a word: a record too many
leaves the quarantine rather than one too few.
"""

from __future__ import annotations

import csv
import itertools
import json
import re
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batch_pipelines.engine.erasure.subject import is_same
from batch_pipelines.engine.formats import COLUMNAR
from batch_pipelines.engine.reading.csv_reader import csv_names
from batch_pipelines.engine.reading.readers import JSON_LINES, read_chunks, read_raw

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from batch_pipelines.engine.catalog import Column
    from batch_pipelines.engine.erasure.subject import Subject
    from batch_pipelines.engine.formats import Format
    from batch_pipelines.engine.reading.chunks import Chunk
    from batch_pipelines.engine.routes import Route


def records_of(
    subject: Subject, path: Path, file_format: str, form: Format, route: Route | None = None
) -> list[int]:
    """Find a person's records in a file that fills their table.

    Args:
        subject: The person.
        path: The file, as `plain.readable` gives it.
        file_format: Its format.
        form: How it is written.
        route: Which of its lines are the table's, where they say it.

    Returns:
        Their numbers, from 1, rising.

    Raises:
        DeliveryError: The file cannot be read.
        FeedError: Its columns do not fit the table of today.
    """
    if file_format == JSON_LINES:
        raws = read_raw(path, file_format, itertools.count(1), form)
        return [
            number
            for number, (_, _, raw) in enumerate(raws, 1)
            if _is_own_line(subject, raw, form, route)
        ]
    names = None if file_format in COLUMNAR else csv_names(path, form, file_format)
    found: list[int] = []
    for chunk in read_chunks(path, file_format, subject.table, form):
        found += chunk.records[_of_chunk(subject, chunk)].tolist()
        found += [
            reject.record
            for reject in chunk.rejects
            if _is_own_raw(subject, reject.raw, names, form, file_format)
        ]
    return sorted(found)


def is_in_raw(subject: Subject, raw: bytes) -> bool:
    """Say whether all of a person's values stand in a record, each as a word.

    Args:
        subject: The person.
        raw: The record as it was delivered.
    """
    return all(_has_word(raw, value) for value in subject.values)


def _of_chunk(subject: Subject, chunk: Chunk) -> npt.NDArray[np.bool_]:
    brought = {column.name: place for place, column in enumerate(chunk.columns)}
    same = np.ones(chunk.rows, bool)
    for column, value in zip(subject.columns, subject.values, strict=True):
        if column.name not in brought:
            return np.zeros(chunk.rows, bool)
        same &= equal(chunk.arrays[brought[column.name]], column, value)
    return same


def equal(array: pa.Array, column: Column, value: str) -> npt.NDArray[np.bool_]:
    """Say which values of a column, as a file has them, are a person's.

    Args:
        array: The values.
        column: The column.
        value: The person's, as PostgreSQL writes it.
    """
    if isinstance(array, pa.DictionaryArray):
        array = array.dictionary_decode()
    # Few values are different ones, and each is looked at once.
    own = [each for each in pc.unique(array).to_pylist() if is_same(column, each, value)]
    if not own:
        return np.zeros(len(array), bool)
    found = pc.is_in(array, pa.array(own, array.type))
    return np.asarray(found.to_numpy(zero_copy_only=False), bool)


def _is_own_line(subject: Subject, raw: bytes, form: Format, route: Route | None) -> bool:
    try:
        members = json.loads(raw, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return is_in_raw(subject, raw)
    if not isinstance(members, dict):
        return is_in_raw(subject, raw)
    if route is not None and not route.is_own(_text(members.get(route.field))):
        return False
    fields = {form.target_name(key): value for key, value in members.items()}
    return all(
        is_same(column, _text(fields.get(column.name)), value)
        for column, value in zip(subject.columns, subject.values, strict=True)
    )


def _text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value)


def _is_own_raw(
    subject: Subject, raw: bytes, names: list[str] | None, form: Format, file_format: str
) -> bool:
    if names is None:
        # Of columnar files a record is a JSON object of the file's columns.
        return _is_own_line(subject, raw, form, None)
    delimiter, quote, escape = (sign.decode() for sign in form.signs(file_format))
    with suppress(csv.Error, UnicodeDecodeError):
        rows = [*csv.reader(
            [raw.decode()], delimiter=delimiter, quotechar=quote or None,
            quoting=csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE, escapechar=escape or None,
            doublequote=not escape, strict=True,
        )]  # fmt: skip
        if len(rows) == 1 and len(rows[0]) == len(names):
            fields = {form.target_name(n): each for n, each in zip(names, rows[0], strict=True)}
            return all(
                is_same(column, fields.get(column.name), value)
                for column, value in zip(subject.columns, subject.values, strict=True)
            )
    return is_in_raw(subject, raw)


def _has_word(raw: bytes, value: str) -> bool:
    forms = {value, value.replace('"', '""'), json.dumps(value)[1:-1]}
    forms.add(json.dumps(value, ensure_ascii=False)[1:-1])
    return any(
        re.search(rb"(?<![0-9A-Za-z_])" + re.escape(each.encode()) + rb"(?![0-9A-Za-z_])", raw)
        for each in forms
    )
