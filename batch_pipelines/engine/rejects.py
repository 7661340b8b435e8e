"""Rejects: records that cannot be loaded, each with its place, its raw bytes and every reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

BAD_ENCODING: Final = "22021"
"""SQLSTATE character_not_in_repertoire: bytes that are not in the file's encoding, or a NUL."""
BAD_FORMAT: Final = "22P04"
"""SQLSTATE bad_copy_file_format: wrong number of fields, misplaced quote."""
BAD_JSON: Final = "22032"
"""SQLSTATE invalid_json_text."""
BAD_VALUE: Final = "22P02"
"""SQLSTATE invalid_text_representation."""
BAD_TIME: Final = "22007"
"""SQLSTATE invalid_datetime_format."""
OUT_OF_RANGE: Final = "22003"
"""SQLSTATE numeric_value_out_of_range."""
TOO_LONG: Final = "22001"
"""SQLSTATE string_data_right_truncation."""
NOT_NULL: Final = "23502"
"""SQLSTATE not_null_violation."""


@dataclass(frozen=True, slots=True)
class Breach:
    """One reason why a record cannot be loaded.

    Attributes:
        sqlstate: PostgreSQL's code for this class of error (manual, appendix A).
        message: What is wrong, in our words and without a value.
        column: The column, where one is to blame.
        constraint: The constraint, where one is broken.
    """

    sqlstate: str
    message: str
    column: str | None = None
    constraint: str | None = None


@dataclass(frozen=True, slots=True)
class Reject:
    """A record that cannot be loaded.

    Attributes:
        file_name: The file.
        record: Its number in the file, from 1; the header is not counted.
        line: Number of the physical line it begins on, from 1; None where a file has no lines.
        offset: Where it begins in the file, in bytes; None where records have no place of their own.
        raw: The record as it was delivered, with its line end.
        breaches: Every reason, the first one first.
    """

    file_name: str
    record: int
    line: int | None
    offset: int | None
    raw: bytes
    breaches: tuple[Breach, ...]

    def __str__(self) -> str:
        first = self.breaches[0]
        line = "" if self.line is None else f" (line {self.line})"
        column = "" if first.column is None else f", column {first.column}"
        return f"{self.file_name}, record {self.record}{line}{column}: {first.message}"


@dataclass(frozen=True, slots=True)
class Reason:
    """What many records of a table can have in common: the first breach of each.

    Attributes:
        target_table: The table.
        breach: The breach.
    """

    target_table: str
    breach: Breach
