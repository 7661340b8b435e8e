"""Filling a bag anew out of another one, without a person's records: delivered files, rows, lines.

What holds nothing of the person is taken over byte for byte, and proven on the way. Records behind one
that was cut out have other numbers then: in row digests and rejects they get these, too.
"""

from __future__ import annotations

import bisect
import hashlib
import json
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import crc32c
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batch_pipelines.engine.archiving import tags
from batch_pipelines.engine.archiving.bag import DIGESTS, REJECTS
from batch_pipelines.engine.archiving.contents import EXTRACT
from batch_pipelines.engine.archiving.rows.account import ACCOUNT as ROWS_ACCOUNT
from batch_pipelines.engine.archiving.rows.account import Account, TableRows
from batch_pipelines.engine.archiving.rows.parquet import digest_of, read_rows, write_rows
from batch_pipelines.engine.audit import anchors
from batch_pipelines.engine.digests.row_digest import RowDigest
from batch_pipelines.engine.erasure.copies import NAMING
from batch_pipelines.engine.erasure.cutting import Cut, cut
from batch_pipelines.engine.retention.records import ACCOUNT, Digest, file_of, lines_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from batch_pipelines.engine.archiving.bag import Bag
    from batch_pipelines.engine.archiving.rows.shape import HeldColumn
    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.ledger.erasures import Positions
    from batch_pipelines.engine.ledger.files import ImportFile
    from batch_pipelines.engine.ledger.proofs import TableBalance

_DATA: Final = f"{tags.DATA}/"


@dataclass(frozen=True)
class NewFile:
    """A delivered file without some records.

    Attributes:
        name: Its name.
        was: SHA-256 of the file before, hex.
        size, crc32c, sha256: Of the file now.
        cuts: What was cut out.
    """

    name: str
    was: str
    size: int
    crc32c: int
    sha256: str
    cuts: tuple[Cut, ...]


@dataclass
class Refilled:
    """What a bag has been filled with.

    Attributes:
        files: Delivered files that are others now.
        digests: Digests of the rows that are gone, by table, file and record.
        sent: Of a bag of rows: the digest of the rows that are gone, as they were sent, by table; None
            where that cannot be told.
        whole: The same, over the columns of `whole_digest`.
    """

    files: list[NewFile] = field(default_factory=list)
    digests: dict[tuple[str, str], dict[int, int]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    sent: dict[str, RowDigest | None] = field(default_factory=dict)
    whole: dict[str, RowDigest] = field(default_factory=dict)


@dataclass(frozen=True)
class Refill:
    """Fills a bag anew.

    Attributes:
        bag: The one before, open.
        positions: The person's records in it.
        dropped: Delivered files that leave it as a whole.
        data: The new bag's folder of data.
        scratch: A folder for files on the way.
    """

    bag: Bag
    positions: Positions
    dropped: Sequence[str]
    data: Path
    scratch: Path

    def delivered(self, feed: Feed, files: Sequence[ImportFile]) -> Refilled:
        """Fill a bag of what was delivered; what the ledger says is not put in.

        Args:
            feed: Says how files are written.
            files: What the ledger says of them.

        Raises:
            ArchiveError: The bag before is not what it was sealed with.
            DeliveryError: A file cannot be read.
        """
        done = Refilled()
        others = {*self.bag.files}
        for file in files:
            name, numbers = file.place_in_bag, self.positions.get(file.file_name, [])
            if not self.bag.has(name):
                continue
            if file.file_name in self.dropped:
                others.discard(self._stored(name))
            elif numbers:
                others.discard(self._stored(name))
                done.files.append(self._cut(feed, file, numbers))
        shifts = {file.name: file.cuts for file in done.files}
        for name in self.bag.under(DIGESTS):
            others.discard(self._stored(name))
            self._digests(name, shifts, done)
        if self.bag.has(REJECTS):
            others.discard(self._stored(REJECTS))
            self._rejects(shifts)
        self._take_over(
            each for each in others
            if not each.startswith(f"{_DATA}{EXTRACT}/") and each != f"{_DATA}{anchors.IN_BAG}"
        )  # fmt: skip
        return done

    def rows(
        self, recorded: Mapping[str, TableBalance], whole: Mapping[str, Sequence[str]]
    ) -> Refilled:
        """Fill a bag of rows.

        Args:
            recorded: What the ledger says of the tables.
            whole: The columns of a digest over all, by table, where there is one.

        Raises:
            ArchiveError: The bag before is not what it was sealed with.
        """
        done = Refilled()
        account = Account.of_json(self._read(ROWS_ACCOUNT))
        others = {*self.bag.files} - {self._stored(ROWS_ACCOUNT)}
        tables = []
        for table in account.tables:
            numbers = self.positions.get(table.full_name)
            if numbers:
                others.discard(self._stored(table.file))
                name = table.full_name
                own = recorded.get(name)
                tables.append(self._table(table, numbers, own, whole.get(name, ()), done))
            else:
                tables.append(table)
        self._take_over(others)
        text = replace(account, tables=tuple(tables)).as_json()
        (self.data / ROWS_ACCOUNT).write_text(text, encoding="utf-8")
        return done

    def lines(self) -> Refilled:
        """Fill a bag of lines of the ledger.

        Raises:
            ArchiveError: The bag before is not what it was sealed with.
        """
        done = Refilled()
        account = json.loads(self._read(ACCOUNT))
        others = {*self.bag.files} - {self._stored(ACCOUNT)}
        for table in list(account["tables"]):
            numbers = {*(self.positions.get(table) or ())}
            if not numbers:
                continue
            others.discard(self._stored(file_of(table)))
            digest, target = Digest(), self.scratch / "lines"
            with target.open("wb") as file:
                for number, line in enumerate(lines_of(self.bag, table)):
                    if number not in numbers:
                        file.write(digest.add(line.decode()))
                    elif table in NAMING:
                        # The line stays; which rows differed goes.
                        file.write(digest.add(json.dumps({**json.loads(line), "details": []})))
            left = digest.lines()
            if left.number:
                account["tables"][table] = {"lines": left.number, "sha256": left.sha256}
                self._pack(file_of(table), target)
            else:
                del account["tables"][table]
        self._take_over(others)
        (self.data / ACCOUNT).write_text(json.dumps(account, indent=1) + "\n", encoding="utf-8")
        return done

    def _cut(self, feed: Feed, file: ImportFile, numbers: Sequence[int]) -> NewFile:
        folder = self.scratch / "source"
        folder.mkdir(exist_ok=True)
        origin, target = folder / file.file_name, self.scratch / "cut"
        was = self.bag.copy(file.place_in_bag, origin)
        cuts = cut(origin, target, file, feed.format, numbers)
        crc, sha256 = 0, hashlib.sha256()
        with target.open("rb") as reading:
            while piece := reading.read(1 << 20):
                crc = crc32c.crc32c(piece, crc)
                sha256.update(piece)
        self._pack(file.place_in_bag, target)
        size = target.stat().st_size
        origin.unlink()
        return NewFile(file.file_name, was, size, crc, sha256.hexdigest(), tuple(cuts))

    def _digests(self, name: str, shifts: dict[str, tuple[Cut, ...]], done: Refilled) -> None:
        table = name.removeprefix(f"{DIGESTS}/").removesuffix(".parquet").partition(".replay-")[0]
        target = self.scratch / "digests.parquet"
        with pq.ParquetFile(self.bag.path(name)) as file:
            schema = file.schema_arrow
            with pq.ParquetWriter(target, schema, compression="zstd") as writer:
                for rows in file.iter_batches():
                    names = rows.column(0).to_pylist()
                    numbers = np.asarray(rows.column(1).to_numpy(zero_copy_only=False), np.int64)
                    stays, shifted = self._moved(names, numbers, shifts)
                    for place in np.flatnonzero(~stays).tolist():
                        own = done.digests[table, names[place]]
                        own[int(numbers[place])] = int(
                            rows.column(rows.num_columns - 1)[place].as_py()
                        )
                    columns = [*rows.columns]
                    columns[1] = pa.array(shifted, schema.field(1).type)
                    moved = pa.RecordBatch.from_arrays(columns, schema=schema)
                    writer.write_batch(moved.filter(pa.array(stays)))
        self._pack(name, target)

    def _rejects(self, shifts: dict[str, tuple[Cut, ...]]) -> None:
        target = self.scratch / "rejects.parquet"
        with pq.ParquetFile(self.bag.path(REJECTS)) as file:
            schema = file.schema_arrow
            with pq.ParquetWriter(target, schema, compression="zstd") as writer:
                for rows in file.iter_batches():
                    kept = []
                    for row in rows.to_pylist():
                        own = self.positions.get(row["file_name"], [])
                        if row["record_number"] in own:
                            continue
                        for before in shifts.get(row["file_name"], ()):
                            if before.record < row["record_number"]:
                                row["shift"] = row.get("shift", 0) + 1
                                if row["byte_offset"] is not None:
                                    row["byte_offset"] -= before.size
                                if row["line_number"] is not None:
                                    row["line_number"] -= before.lines
                        row["record_number"] -= row.pop("shift", 0)
                        kept.append(row)
                    writer.write_batch(pa.RecordBatch.from_pylist(kept, schema))
        self._pack(REJECTS, target)

    def _moved(
        self, names: list[str], numbers: np.ndarray, shifts: dict[str, tuple[Cut, ...]]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Say which records stay, and which numbers they have then."""
        stays, shifted = np.ones(len(names), bool), numbers.copy()
        for name in {*names} & {*self.positions}:
            own = np.asarray([each == name for each in names], bool)
            gone = self.positions[name]
            stays &= ~(own & np.isin(numbers, gone))
            if name in shifts:
                shifted[own] -= np.searchsorted(np.asarray(gone), numbers[own])
        return stays, shifted

    def _table(
        self,
        table: TableRows,
        numbers: Sequence[int],
        recorded: TableBalance | None,
        whole: Sequence[str],
        done: Refilled,
    ) -> TableRows:
        """Write the rows of a table but for some; also digest those as they were sent."""
        by_name = {column.name: column for column in table.columns}
        chosen = [by_name[n] for n in recorded.columns if n in by_name] if recorded else []
        types = [column.held_as.digested_as for column in chosen]
        as_sent = recorded is not None and types == (recorded.column_types or types)
        entire = [by_name[name] for name in whole if name in by_name]
        left = sent = over_all = RowDigest.zero()

        def staying() -> Iterator[pa.RecordBatch]:
            nonlocal left, sent, over_all
            first = 0
            for rows in read_rows(self.bag.path(table.file), table.columns):
                end = first + rows.num_rows
                here = numbers[
                    bisect.bisect_left(numbers, first) : bisect.bisect_left(numbers, end)
                ]
                gone = np.zeros(rows.num_rows, bool)
                gone[[number - first for number in here]] = True
                own = rows.filter(pa.array(gone))
                sent += _digest(own, chosen)
                over_all += _digest(own, entire)
                rest = rows.filter(pa.array(~gone))
                left += digest_of(rest, table.columns)
                first = end
                yield rest

        target = self.scratch / "rows.parquet"
        write_rows(target, table.full_name, table.columns, staying())
        self._pack(table.file, target)
        done.sent[table.full_name] = sent if as_sent else None
        done.whole[table.full_name] = over_all
        since = replace(table.since, loaded=table.since.loaded - len(numbers))
        return replace(table, digest=left, since=since)

    def _take_over(self, stored: Iterable[str]) -> None:
        for path in stored:
            if path.startswith(_DATA):
                target = self.data.parent / path
                target.parent.mkdir(parents=True, exist_ok=True)
                self.bag.take_over(path, target)

    def _read(self, name: str) -> bytes:
        pieces: list[bytes] = []
        self.bag.read(name, pieces.append)
        return b"".join(pieces)

    def _pack(self, name: str, origin: Path) -> None:
        target = self.data / self.bag.packing.stored(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        self.bag.packing.pack(name, origin, target)

    def _stored(self, name: str) -> str:
        return f"{_DATA}{self.bag.packing.stored(name)}"


def _digest(rows: pa.RecordBatch, columns: Sequence[HeldColumn]) -> RowDigest:
    if not columns:
        return RowDigest(rows.num_rows, 0, 0)
    return digest_of(rows.select([column.name for column in columns]), columns)
