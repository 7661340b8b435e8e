"""Routes: which lines of a file are for which table, where each line says its table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Route:
    """How the lines of one table are told from those of others in the same file.

    Attributes:
        field: The key whose value says the table.
        match: Its value in the lines of this table.
        others: Its values in the lines of the feed's other tables.
        takes_stray: Whether lines for no table of the feed, and those that cannot be read, go with
            this table, as rejects: they must be held against one of the books.
    """

    field: str
    match: str
    others: frozenset[str]
    takes_stray: bool

    def is_own(self, value: str | None) -> bool:
        """Say whether a line is of this table.

        Args:
            value: What the line says, None where it says nothing that can be read.
        """
        return value == self.match or (self.takes_stray and value not in self.others)
