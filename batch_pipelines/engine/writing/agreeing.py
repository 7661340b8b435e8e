"""What is loaded of a delivery's columns: all that have a place, as the feed's contract lets them.

Columns that are ignored are taken out of the format, so that all readers agree, the second one too;
those of which a value is refused are left to the reader that loads, and set aside with their records.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from batch_pipelines.engine.catalog import STAMP, match_columns
from batch_pipelines.engine.errors import ContractError, FeedError
from batch_pipelines.engine.reading.readers import file_columns, file_types
from batch_pipelines.engine.signatures import (
    SignedColumn,
    compare,
    merged,
    refusal,
    signable,
)
from batch_pipelines.engine.type_families import TEXT

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from batch_pipelines.engine.catalog import Column, TableInfo
    from batch_pipelines.engine.formats import Format
    from batch_pipelines.engine.ledger.files import ImportFile
    from batch_pipelines.engine.reading.json_lines import Survey
    from batch_pipelines.engine.signatures import Comparison, Terms


@dataclass(frozen=True)
class Agreement:
    """What is loaded of a delivery's columns.

    Attributes:
        comparison: What the delivery brings, against the version in force.
        form: How its files are written, without the columns that are left out.
        refused: Names of the files' columns of which a value is refused.
    """

    comparison: Comparison
    form: Format
    refused: frozenset[str]


def columns_of(
    table: TableInfo,
    files: Sequence[ImportFile],
    paths: Mapping[str, Path],
    form: Format,
    terms: Terms,
) -> tuple[dict[str, tuple[Column, ...]], Agreement]:
    """Match the columns of CSV or Parquet files with their table, under the feed's contract.

    Args:
        table: The target table.
        files: The files.
        paths: Where readers read each of them, by its name.
        form: How they are written.
        terms: The contract, and the version in force.

    Returns:
        For each file the target columns it brings, in its order; and the agreement.

    Raises:
        DeliveryError: A header cannot be read.
        ContractError: The contract freezes what has changed, or the table has no place for it.
        FeedError: Columns do not fit the table otherwise.
    """
    types = {f.file_name: file_types(paths[f.file_name], f.format, form) for f in files}
    places = {c.name for c in table.columns}
    for file in files:
        # Where nothing at all is known, the file's format is wrong, and not its sender's contract.
        if not any(form.target_name(name) in places for name in types[file.file_name]):
            file_columns(paths[file.file_name], file.format, table, form)
    agreed = _agree(table, [*types.values()], form, terms, named(types), own_columns=False)
    try:
        brought = {
            f.file_name: file_columns(
                paths[f.file_name], f.format, table, agreed.form, agreed.refused
            )
            for f in files
        }
    except FeedError as error:
        raise ContractError(str(error), agreed.comparison) from None
    return brought, agreed


def named(files: Collection[str]) -> str:
    """Name files in a message: the first, and how many more.

    Args:
        files: Their names.
    """
    first, *others = files
    return f"{first} and {len(others)} more" if others else first


def keys_of(
    table: TableInfo, found: Survey, form: Format, terms: Terms, where: str
) -> Agreement | None:
    """Match the keys of JSON lines with their table, under the feed's contract.

    Args:
        table: The target table.
        found: What the records bring.
        form: How they are written.
        terms: The contract, and the version in force.
        where: The files, for messages.

    Returns:
        The agreement; None where there is no record to tell of columns.

    Raises:
        ContractError: The contract freezes what has changed, or the table has no place for it.
    """
    if not found.keys:
        return None
    agreed = _agree(table, [dict.fromkeys(found.keys, TEXT)], form, terms, where, own_columns=True)
    comparison = agreed.comparison
    unplaced = {c.target for c in comparison.signature.columns if c.target_type is None}
    if unplaced & comparison.targets("evolve"):
        try:
            match_columns(table, sorted(found.brought | unplaced), where)
        except FeedError as error:
            raise ContractError(str(error), comparison) from None
    return agreed


def _agree(
    table: TableInfo,
    files: Sequence[Mapping[str, str]],
    form: Format,
    terms: Terms,
    where: str,
    *,
    own_columns: bool,
) -> Agreement:
    names = {name for file in files for name in file}
    passed_over = {form.columns.get(n, n) for n in names if n in form.ignore_columns}
    form = leaving(form, terms.left)
    signature = merged(each for file in files for each in _signed(table, file, form))
    comparison = compare(table, signature, terms, own_columns=own_columns, passed_over=passed_over)
    why = refusal(comparison, where)
    if why is not None:
        raise ContractError(why, comparison)
    meant = {name: signable(form.target_name(name) or "") for name in names}
    ignored, refused = comparison.targets("ignore"), comparison.targets("quarantine")
    return Agreement(
        comparison,
        _without(form, {name for name in names if meant[name] in ignored}),
        frozenset(name for name in names if meant[name] in refused),
    )


def _signed(
    table: TableInfo, file: Mapping[str, str], form: Format
) -> Iterator[dict[str, SignedColumn]]:
    known = {column.name: column for column in table.columns if not column.computed}
    for name, kind in file.items():
        target = form.target_name(name)
        # That one is refused whatever a contract says.
        if target is not None and target != STAMP:
            column = known.get(target)
            place = None if column is None else column.type_name
            target = signable(target)
            yield {target: SignedColumn(target, place, signable(name), kind)}


def leaving(form: Format, targets: Collection[str]) -> Format:
    """Leave columns out of a format.

    Args:
        form: The format.
        targets: What the columns are meant for.

    Returns:
        A format that ignores them too.
    """
    mapped = {name for name, target in form.columns.items() if target in targets}
    return _without(form, mapped | {name for name in targets if name not in form.columns})


def _without(form: Format, names: Collection[str]) -> Format:
    if not names:
        return form
    return form.model_copy(update={"ignore_columns": (*form.ignore_columns, *sorted(names))})
