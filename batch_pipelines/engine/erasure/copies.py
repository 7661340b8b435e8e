"""Searching what was put away: the bags of a batch, and what of it stands in staging still."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from batch_pipelines.engine.archiving.bag import DIGESTS, opened
from batch_pipelines.engine.archiving.choosing import place_of
from batch_pipelines.engine.archiving.rows.reading import open_rows_at
from batch_pipelines.engine.erasure.cutting import why_whole
from batch_pipelines.engine.erasure.searching import equal, is_in_raw, records_of
from batch_pipelines.engine.erasure.subject import is_same
from batch_pipelines.engine.errors import BatchError
from batch_pipelines.engine.ledger import files
from batch_pipelines.engine.ledger.files import UNREAD
from batch_pipelines.engine.reading.plain import readable
from batch_pipelines.engine.retention.records import lines_of, tables_in

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from batch_pipelines.engine.archiving.bag import Bag
    from batch_pipelines.engine.erasure.keys import PersonKeys
    from batch_pipelines.engine.erasure.subject import Subject
    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.ledger.archives import ArchiveRecord
    from batch_pipelines.engine.ledger.erasures import Positions
    from batch_pipelines.engine.ledger.files import ImportFile
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.settings import Settings

NAMING: Final = ("validation_summary", "verification_log")
"""Tables of the ledger whose lines name rows that differ, by key."""


@dataclass
class Found:
    """What was found in a place.

    Attributes:
        positions: Which records; see `erasures.Positions`.
        whole: Files that can only go as a whole, and why.
        searched: Files of delivered records that were read, so that all of the person's are known.
    """

    positions: Positions = field(default_factory=dict)
    whole: dict[str, str] = field(default_factory=dict)
    searched: set[str] = field(default_factory=set)

    @property
    def records(self) -> int:
        """How many."""
        unread = sum(name not in self.positions for name in self.whole)
        return unread + sum(map(len, self.positions.values()))

    def add(self, name: str, numbers: Sequence[int]) -> None:
        """Take records in."""
        if numbers:
            self.positions[name] = sorted({*self.positions.get(name, []), *numbers})


@dataclass(frozen=True)
class Search:
    """Searches copies for a person.

    Attributes:
        connection: To read the ledger.
        settings: Hold the keys, and say where files are unpacked.
        feed: The feed of the batches.
        subject: The person.
        keys: The primary keys of their rows.
    """

    connection: Connection
    settings: Settings
    feed: Feed
    subject: Subject
    keys: PersonKeys

    def bag(self, record: ArchiveRecord) -> Found:
        """Search a bag of what was delivered.

        Raises:
            ArchiveError: It is gone, damaged or cannot be reached or opened.
        """
        archive, name = place_of(self.settings, record.place)
        with (
            opened(self.settings, archive, name, record.tagmanifest_sha256) as bag,
            tempfile.TemporaryDirectory(prefix="erase-", dir=self.settings.home) as scratch,
        ):
            folder = Path(scratch) / "source"
            folder.mkdir()
            found = Found()
            for file in self._files(record.batch_id):
                if bag.has(file.place_in_bag):
                    bag.copy(file.place_in_bag, folder / file.file_name)
                    self._search(folder, file, found)
            self._search_digests(bag, found)
        return found

    def staged(self, batch_id: str) -> Found:
        """Search what stands in staging of a batch."""
        folder = self.settings.staging / batch_id / "source"
        found = Found()
        for file in self._files(batch_id):
            if (folder / file.file_name).is_file():
                self._search(folder, file, found)
        return found

    def rows(self, record: ArchiveRecord) -> tuple[Found, set[tuple[str, ...]]]:
        """Search a bag of rows; also give the primary keys of those found.

        Raises:
            ArchiveError: It is gone, damaged or cannot be reached or opened.
        """
        archive, name = place_of(self.settings, record.place)
        found, keys = Found(), set[tuple[str, ...]]()
        with open_rows_at(self.settings, archive, name, record.tagmanifest_sha256) as rows:
            for table in rows.account.tables:
                if table.full_name != self.subject.table.full_name:
                    continue
                first, own = 0, list[int]()
                for batch in rows.batches(table):
                    mask = np.ones(batch.num_rows, bool)
                    for column, value in zip(
                        self.subject.columns, self.subject.values, strict=True
                    ):
                        mask &= equal(batch.column(column.name), column, value)
                    for place in np.flatnonzero(mask).tolist():
                        own.append(first + place)
                        keys.add(
                            tuple(
                                str(batch.column(column.name)[place].as_py())
                                for column in self.keys.columns
                            )
                        )
                    first += batch.num_rows
                found.add(table.full_name, own)
        return found, keys if self.keys.columns else set()

    def records(self, record: ArchiveRecord, delivered: Positions) -> Found:
        """Search a bag of lines of the ledger.

        Args:
            record: The bag.
            delivered: The person's records of the batch, by file.

        Raises:
            ArchiveError: It is gone, damaged or cannot be reached or opened.
        """
        archive, name = place_of(self.settings, record.place)
        found = Found()
        with opened(self.settings, archive, name, record.tagmanifest_sha256) as bag:
            for table in tables_in(bag):
                own = [
                    number
                    for number, line in enumerate(lines_of(bag, table))
                    if self.is_own_line(table, json.loads(line), delivered)
                ]
                found.add(table, own)
        return found

    def is_own_line(self, table: str, line: Mapping[str, object], delivered: Positions) -> bool:
        """Say whether a line of the ledger holds something of the person."""
        name = self.subject.table.full_name
        if line.get("target_table", name) != name:
            return False
        match table:
            case "row_before_image" | "superseded_row":
                return self._is_own_image(line["image"])
            case "import_reject":
                return self._is_own_reject(line, delivered)
            case "crc32_audit":
                entity = f"{line['entity_id']}#"
                return line["entity_type"] == "row" and any(
                    entity.startswith(f"{name}#{file}#{number}#")
                    for file, own in delivered.items()
                    for number in own
                )
            case "validation_summary" | "verification_log":
                details = line.get("details")
                return isinstance(details, list) and any(
                    self.keys.has(each.get("key") or {}) for each in details
                )
        return False

    def _is_own_image(self, image: object) -> bool:
        return isinstance(image, dict) and all(
            is_same(column, image.get(column.name), value)
            for column, value in zip(self.subject.columns, self.subject.values, strict=True)
        )

    def _is_own_reject(self, line: Mapping[str, object], delivered: Positions) -> bool:
        own = delivered.get(str(line["file_name"]), [])
        if own:
            return line["record_number"] in own
        return is_in_raw(self.subject, bytes.fromhex(str(line["raw"]).removeprefix("\\x")))

    def _files(self, batch_id: str) -> list[ImportFile]:
        mine = {self.subject.table.full_name, "*"}
        return [
            file for file in files.of_batch(self.connection, batch_id)
            if file.target_table in mine or file.format == UNREAD or file.set_aside
        ]  # fmt: skip

    def _search(self, folder: Path, file: ImportFile, found: Found) -> None:
        name, path = file.file_name, folder / file.file_name
        table = self.subject.table.full_name
        try:
            _require_read(file)
            plain = readable(folder, file, self.feed.format)
            route = self.feed.route(table) if file.target_table == "*" else None
            numbers = records_of(self.subject, plain, file.format, self.feed.format, route)
        except (BatchError, _UnreadError) as error:
            if is_in_raw(self.subject, path.read_bytes()):
                found.whole[name] = str(error)
            return
        found.searched.add(name)
        found.add(name, numbers)
        why = why_whole(path, file, self.feed.format)
        if numbers and why:
            found.whole[name] = why

    def _search_digests(self, bag: Bag, found: Found) -> None:
        start = f"{DIGESTS}/{self.subject.table.full_name}."
        for name in bag.under(DIGESTS):
            if name.startswith(start):
                for file, numbers in self.keys.in_digests(bag.path(name)).items():
                    found.add(file, numbers)


class _UnreadError(Exception):
    """A file that no reader takes apart."""


def _require_read(file: ImportFile) -> None:
    if file.format == UNREAD or file.set_aside:
        message = "nobody reads it"
        raise _UnreadError(message)
