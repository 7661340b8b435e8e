"""The contract of a feed: what becomes of a delivery that brings other columns than the one before it.

Here is only what a feed may say of it. Not here: what a delivery brings, and how it is compared
(`signatures`).
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import pydantic

Policy: TypeAlias = Literal["evolve", "freeze", "quarantine", "ignore"]
"""Take a change on; fail the batch; set the records aside that bring a value; load without."""

_EXTRA = "extra_column"


class Contract(pydantic.BaseModel):
    """What becomes of each kind of change, against the version of the signature that is in force.

    Attributes:
        extra_column: A column that came with no delivery before, or that the table does not have.
            Where the table has it, it is loaded, unless changes are frozen. Without a word of the
            feed, `evolve`; of JSON lines `quarantine`, since each record has columns of its own.
        missing_column: A column that came before and does not come now.
        changed_type: A column that a file with types of its own gives another one.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    extra_column: Policy | None = pydantic.Field(
        default=None, description="a column that did not come before, or that the table lacks"
    )
    missing_column: Literal["evolve", "freeze"] = pydantic.Field(
        default="evolve", description="a column that came before and does not come now"
    )
    changed_type: Policy = pydantic.Field(
        default="evolve", description="a column to which a Parquet file gives another type"
    )

    @pydantic.field_validator("missing_column", mode="before")
    @classmethod
    def _of_what_is_not_there(cls, value: object) -> object:
        if value in {"quarantine", "ignore"}:
            message = (
                "must be evolve or freeze: what does not come cannot be ignored, and to quarantine "
                "for want of it would set every record aside"
            )
            raise ValueError(message)
        return value

    def extra(self, *, own_columns: bool) -> Policy:
        """Say what becomes of a column that the table does not have.

        Args:
            own_columns: Whether each record has columns of its own, as in JSON lines.

        Returns:
            What the feed says, or else what holds for the format.
        """
        return self.extra_column or ("quarantine" if own_columns else "evolve")

    def but(self, other: Contract) -> Contract:
        """Give a contract in which another one has the last word, where it says anything."""
        said = other.model_dump(exclude_unset=True)
        return self.model_copy(update=said)
