"""Chunks: some consecutive records of a file, typed, and what among them cannot be loaded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pyarrow as pa

from batch_pipelines.engine.catalog import Column
from batch_pipelines.engine.reading.convert import to_wire
from batch_pipelines.engine.rejects import BAD_FORMAT, Breach

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from batch_pipelines.engine.rejects import Reject

_UNWANTED = "brings a value in a column that the feed's contract does not let in"

Raw: TypeAlias = "tuple[int | None, int | None, bytes]"
"""A record as it was delivered: its line, its byte offset, its bytes; see `Reject`."""


@dataclass(frozen=True)
class Refused(Column):
    """A column of a file that is not loaded, and in which no record may bring a value."""

    @classmethod
    def named(cls, name: str) -> Refused:
        """Stand for a column of the file.

        Args:
            name: What it is meant for.
        """
        return cls(name, "", "", None, not_null=False, has_default=False, computed=False)


def loaded(columns: Sequence[Column | None]) -> tuple[Column, ...]:
    """Leave out what is not loaded of a file's columns."""
    return tuple(c for c in columns if c is not None and not isinstance(c, Refused))


@dataclass(frozen=True)
class Chunk:
    """Some consecutive records of a file.

    Attributes:
        file_name: The file.
        index: Number of the chunk in the file, from 0.
        columns: The target columns it brings, in the file's order.
        records: Number in the file, from 1, of each record that can be loaded.
        arrays: One array a column, all as long as `records`.
        rejects: The records between them that cannot.
        groups: For each that can, twice the number of its column signature, and one more where it is
            to be written by a statement of its own; None where all are of the first group.
    """

    file_name: str
    index: int
    columns: tuple[Column, ...]
    records: npt.NDArray[np.int64]
    arrays: tuple[pa.Array, ...]
    rejects: tuple[Reject, ...] = ()
    groups: npt.NDArray[np.int32] | None = None

    @property
    def rows(self) -> int:
        """How many records can be loaded."""
        return len(self.records)

    @property
    def first_record(self) -> int:
        """Number of its first record that can be loaded; 0 where there is none."""
        return int(self.records[0]) if self.rows else 0

    def only(self, numbers: npt.NDArray[np.int64]) -> Chunk:
        """Leave out all other records.

        Args:
            numbers: Numbers of the records that stay, rising.

        Returns:
            What is left of the chunk.
        """
        stays = np.isin(self.records, numbers)
        mask, wanted = pa.array(stays), set(numbers.tolist()) if self.rejects else set()
        return replace(
            self,
            records=self.records[stays],
            arrays=tuple(array.filter(mask) for array in self.arrays),
            rejects=tuple(reject for reject in self.rejects if reject.record in wanted),
            groups=None if self.groups is None else self.groups[stays],
        )


def convert_columns(
    values: Sequence[pa.Array], columns: Sequence[Column], *, written: bool
) -> tuple[tuple[pa.Array, ...], npt.NDArray[np.bool_], dict[int, list[Breach]]]:
    """Convert the columns of some records, and take out records with a value that is refused.

    Args:
        values: One array a column, all of one length.
        columns: The target columns, and those of which a value is refused.
        written: Whether binary values are written out as text (CSV).

    Returns:
        One array of what is left for each column that is not refused; which records these are; and
        what is wrong with the others, by their index.
    """
    arrays, wrong = [], dict[int, list["Breach"]]()
    for array, column in zip(values, columns, strict=True):
        if isinstance(column, Refused):
            for place in np.flatnonzero(array.is_valid().to_numpy(zero_copy_only=False)).tolist():
                wrong.setdefault(place, []).append(Breach(BAD_FORMAT, _UNWANTED, column.name))
            continue
        # Text was read while it was parsed, or comes as the bytes it is.
        converted, found = to_wire(
            array, column, written=written and pa.types.is_binary(array.type)
        )
        arrays.append(converted)
        for place, breach in found.items():
            wrong.setdefault(place, []).append(breach)
    good = np.ones(len(values[0]), dtype=bool)
    if wrong:
        good[list(wrong)] = False
        mask = pa.array(good)
        arrays = [array.filter(mask) for array in arrays]
    return tuple(arrays), good, wrong
