"""What a delivery brings for one table: its files, their columns, and the chunks read from them."""

from __future__ import annotations

import functools
import operator
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from batch_pipelines.engine.catalog import parents_first
from batch_pipelines.engine.errors import FeedError
from batch_pipelines.engine.formats import DEFAULT
from batch_pipelines.engine.reading.json_lines import JsonLayout, layout_of, read_json_lines, survey
from batch_pipelines.engine.reading.plain import readable
from batch_pipelines.engine.reading.readers import JSON_LINES, read_chunks, read_raw
from batch_pipelines.engine.signatures import FREE
from batch_pipelines.engine.writing.agreeing import columns_of, keys_of, leaving, named
from batch_pipelines.engine.writing.ruling import NO_RULES
from batch_pipelines.engine.writing.server_changed import as_sent, require_known

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from batch_pipelines.engine.catalog import Column, TableInfo
    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.formats import Format
    from batch_pipelines.engine.ledger.files import ImportFile
    from batch_pipelines.engine.ledger.rejects import LeftOut
    from batch_pipelines.engine.reading.chunks import Chunk, Raw
    from batch_pipelines.engine.routes import Route
    from batch_pipelines.engine.signatures import Comparison, Terms
    from batch_pipelines.engine.writing.ruling import Rules


@dataclass(frozen=True)
class TableSource:
    """What a delivery brings for one table.

    Attributes:
        table: The target table.
        files: The staged files, in the order of their names.
        folder: Where they are.
        columns: The columns they bring, in the table's order.
        paths: Where readers read each of them, by its name.
        form: How they are written.
        only: Numbers of the records to read, by file, rising; None for all of them.
        layout: How records of JSON lines are read; None of other formats.
        comparison: Their columns against the version in force; None where no record tells of any.
        refused: Names of the files' columns of which a value is refused.
        late: Names of columns that rows of the batch lack which were published before the table had
            them; what is known of the whole batch is not known of these.
        rules: What the feed demands of its rows.
        server_changed: Names of columns in which something else may be stored than is sent.
    """

    table: TableInfo
    files: tuple[ImportFile, ...]
    folder: Path
    columns: tuple[Column, ...]
    paths: Mapping[str, Path]
    form: Format = DEFAULT
    only: Mapping[str, npt.NDArray[np.int64]] | None = None
    layout: JsonLayout | None = None
    comparison: Comparison | None = None
    refused: frozenset[str] = frozenset()
    late: frozenset[str] = frozenset()
    rules: Rules = NO_RULES
    server_changed: frozenset[str] = frozenset()

    @property
    def signatures(self) -> tuple[frozenset[str], ...]:
        """For each column signature, the columns that its records leave to the table."""
        return (frozenset(),) if self.layout is None else self.layout.signatures

    @property
    def is_grouped(self) -> bool:
        """Whether its rows are to be told apart by how they are written."""
        forced = self.layout is not None and self.form.individual_field is not None
        return forced or bool(self.filled)

    @property
    def filled(self) -> tuple[Column, ...]:
        """The columns that some records leave to the table, so that the source cannot tell them."""
        absent = frozenset[str]().union(*self.signatures)
        return tuple(column for column in self.columns if column.name in absent)

    @property
    def told(self) -> tuple[Column, ...]:
        """The columns of which the source tells every value that is stored."""
        absent = self.late.union(self.server_changed, *self.signatures)
        return tuple(column for column in self.columns if column.name not in absent)

    @property
    def exact(self) -> tuple[Column, ...]:
        """The columns that row digests cover."""
        return tuple(column for column in self.told if column.wire is not None)

    @property
    def as_text(self) -> tuple[Column, ...]:
        """The columns sent as text and stored by PostgreSQL's own conversion."""
        return tuple(column for column in self.columns if column.wire is None)

    def lacks(self, names: frozenset[str]) -> tuple[Column, ...]:
        """Give those of some columns of the table that no record brings."""
        brought = {column.name for column in self.columns}
        return tuple(column for column in self.table.columns if column.name in names - brought)

    @property
    def meant(self) -> tuple[Column, ...]:
        """The columns that are to be stored as they are staged."""
        return tuple(column for column in self.columns if column.name not in self.server_changed)

    @property
    def is_received_otherwise(self) -> bool:
        """Whether the digest of what is sent is not that of what is stored."""
        return bool(self.as_text or self.filled or self.late or self.server_changed)

    @property
    def records(self) -> int:
        """Records by the independent count, or as many as were asked for."""
        if self.only is not None:
            return sum(len(numbers) for numbers in self.only.values())
        return sum(file.records or 0 for file in self.files)

    def chunks(self) -> Iterator[Chunk]:
        """Read all files, one after the other."""
        for file in self.files:
            path = self.paths[file.file_name]
            if self.layout is not None:
                chunks = read_json_lines(path, self.layout)
            else:
                chunks = read_chunks(path, file.format, self.table, self.form, self.refused)
            if self.only is None:
                yield from chunks
            else:
                wanted = self.only[file.file_name]
                yield from (chunk.only(wanted) for chunk in chunks)

    def raw(self, file: ImportFile, records: Iterable[int]) -> Iterator[Raw]:
        """Read some records of a file as they were delivered; see `readers.read_raw`."""
        return read_raw(self.paths[file.file_name], file.format, records, self.form)

    def require_places(self, file: ImportFile, left_out: LeftOut) -> None:
        """Refuse to go on with a file in which records no longer are what they were.

        Args:
            file: The file.
            left_out: Some of its records, as they were found when it was loaded.

        Raises:
            FeedError: The feed's format has been changed so that they are others now.
        """
        found = self.raw(file, left_out.records.tolist())
        places = zip(left_out.offsets.tolist(), left_out.sizes.tolist(), strict=True)
        for wanted in places:
            _, offset, raw = next(found, (None, -1, b""))
            if offset is not None and (offset, len(raw)) != wanted:
                message = (
                    f"{file.file_name}: the feed's `format:` was changed since it was loaded, so that "
                    "records begin elsewhere. Import the partition again with --force."
                )
                raise FeedError(message)


def table_source(
    table: TableInfo,
    files: Sequence[ImportFile],
    folder: Path,
    form: Format = DEFAULT,
    route: Route | None = None,
    terms: Terms = FREE,
    key: tuple[str, ...] = (),
) -> TableSource:
    """Put together what a delivery brings for a table.

    Args:
        table: The target table.
        files: Its staged files.
        folder: Where they are.
        form: How they are written.
        route: Which lines are the table's, where they say it.
        terms: What their columns are held against.
        key: Columns of the key by which rows are upserted; none where they are inserted.

    Returns:
        The source.

    Raises:
        DeliveryError: A file does not unpack, or a header cannot be read.
        ContractError: The feed's contract freezes what has changed, or the table has no place for it.
        FeedError: Columns do not fit the table, or differ between the files.
    """
    table = as_sent(table, terms.server_changed)
    paths = {f.file_name: readable(folder, f, form) for f in files}
    if all(file.format == JSON_LINES for file in files):
        return _json_source(table, files, folder, paths, form, route, terms, key)
    if any(file.format == JSON_LINES for file in files):
        message = (
            f"{table.full_name}: JSON lines and other files cannot fill a table together, since each "
            "record of the former has columns of its own. Deliver one or the other."
        )
        raise FeedError(message)
    brought, agreed = columns_of(table, files, paths, form, terms)
    first, *others = brought
    for other in others:
        difference = {c.name for c in brought[first]} ^ {c.name for c in brought[other]}
        if difference:
            message = (
                f"{other}: its columns differ from those of {first} in {', '.join(sorted(difference))}. "
                "All files of one delivery that fill a table must bring the same columns."
            )
            raise FeedError(message)
    names = {column.name for column in brought[first]}
    columns = tuple(column for column in table.columns if column.name in names)
    return TableSource(
        table, tuple(files), folder, columns, paths, agreed.form,
        comparison=agreed.comparison, refused=agreed.refused, late=terms.late & names,
        server_changed=terms.server_changed & names,
    )  # fmt: skip


def _json_source(
    table: TableInfo,
    files: Sequence[ImportFile],
    folder: Path,
    paths: Mapping[str, Path],
    form: Format,
    route: Route | None,
    terms: Terms,
    key: tuple[str, ...],
) -> TableSource:
    form = leaving(form, terms.left)
    found = [survey(path, table, form, route, key) for path in paths.values()]
    every = functools.reduce(operator.or_, found)
    agreed = keys_of(table, every, form, terms, named(paths))
    form = form if agreed is None else agreed.form
    layout = layout_of(table, every, form, route, key)
    names = {column.name for column in layout.columns}
    return TableSource(
        table, tuple(files), folder, layout.columns, paths, form, layout=layout,
        comparison=None if agreed is None else agreed.comparison,
        late=terms.late & names, server_changed=terms.server_changed & names,
    )  # fmt: skip


def sources_of(
    tables: Iterable[TableInfo],
    files: Sequence[ImportFile],
    folder: Path,
    feed: Feed,
    terms: Mapping[str, Terms] = MappingProxyType({}),
) -> Iterator[TableSource]:
    """Put together what a delivery brings for each of a feed's tables.

    Args:
        tables: The feed's tables.
        files: The staged files.
        folder: Where they are.
        feed: The feed.
        terms: What the columns of each table are held against, by its name.

    Yields:
        A source for each table that gets any file.

    Raises:
        DeliveryError: A file does not unpack, or a header cannot be read.
        ContractError: The feed's contract freezes what has changed, or a table has no place for it.
        FeedError: Columns do not fit the table, or differ between the files.
    """
    tables = [*tables]
    require_known(feed, tables)
    for table in tables:
        name = table.full_name
        own = [part for file in files if (part := file.of_table(name)) is not None]
        route = feed.route(name)
        if own:
            key = feed.table_named(name).upsert_key(table.primary_key)
            form, loaded = feed.form_of(name), terms.get(name, FREE)
            yield table_source(table, own, folder, form, route, loaded, key)


def with_rules(
    sources: Iterable[TableSource], rules: Mapping[str, Rules]
) -> tuple[TableSource, ...]:
    """Give sources the rules that the feed has for their tables.

    Args:
        sources: The sources, parents first.
        rules: The rules of each table, by its name.

    Returns:
        The sources, those first to which others refer by a foreign key or by a rule.
    """
    found = {s.table.oid: replace(s, rules=rules[s.table.full_name]) for s in sources}
    ordered = parents_first(
        replace(s.table, parents=s.table.parents + s.rules.references) for s in found.values()
    )
    return tuple(found[table.oid] for table in ordered)
