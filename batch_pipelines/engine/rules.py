"""Row rules: what a feed's YAML may demand of a table's rows, beyond what the table itself demands.

Not here: what that means to PostgreSQL, and whether a table has such columns (`writing.ruling`).
"""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Self, TypeAlias

import pydantic


def _scalar(value: object) -> object:
    if isinstance(value, float):
        # The number as it is written, and not the nearest one that a float can hold.
        return Decimal(repr(value))
    if isinstance(value, bool | int | Decimal | str | dt.date):
        return value
    message = "must be a text, a number, a date, true or false"
    raise ValueError(message)


Value: TypeAlias = Annotated[
    Any,
    pydantic.BeforeValidator(_scalar),
    pydantic.WithJsonSchema({"type": ["string", "number", "boolean"]}),
]
"""A value as YAML has it; what it means, the type of its column says."""
Names: TypeAlias = Annotated[tuple[str, ...], pydantic.Field(min_length=1)]


class _Part(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(
        frozen=True, extra="forbid", populate_by_name=True, serialize_by_alias=True
    )


class Range(_Part):
    """The least and the greatest value of a column, both allowed themselves."""

    column: str = pydantic.Field(description="the column")
    min: Value | None = pydantic.Field(default=None, description="the least value allowed")
    max: Value | None = pydantic.Field(default=None, description="the greatest value allowed")

    @pydantic.model_validator(mode="after")
    def _has_an_end(self) -> Self:
        if self.min is None and self.max is None:
            message = "needs `min`, `max`, or both"
            raise ValueError(message)
        return self


class Among(_Part):
    """The values that a column may have."""

    column: str = pydantic.Field(description="the column")
    values: Annotated[tuple[Value, ...], pydantic.Field(min_length=1)] = pydantic.Field(
        description="all values allowed"
    )


class Matches(_Part):
    """A pattern that is found in every value of a column."""

    column: str = pydantic.Field(description="the column")
    pattern: str = pydantic.Field(
        description="regular expression of PostgreSQL; ^ and $ hold it to the whole value"
    )


class References(_Part):
    """Columns whose values stand in another table."""

    columns: Names = pydantic.Field(description="the columns")
    table: Annotated[str, pydantic.StringConstraints(pattern=r"^[^.\x00]+\.[^.\x00]+$")] = (
        pydantic.Field(description="table with its schema, e.g. public.airports")
    )
    table_columns: tuple[str, ...] = pydantic.Field(
        default=(), description="its columns, where they have other names, in the same order"
    )

    @pydantic.model_validator(mode="after")
    def _are_as_many(self) -> Self:
        if self.table_columns and len(self.table_columns) != len(self.columns):
            message = "needs as many `table_columns` as `columns`"
            raise ValueError(message)
        return self


class Condition(_Part):
    """What may be asked of one row, under a name; its answer is true, false or unknown (null).

    Attributes:
        name: What it is called where it is told of.
        range, among, matches, expression: One of these.
    """

    kinds: ClassVar[dict[str, str]] = {
        "range": "range", "in": "among", "matches": "matches", "expression": "expression",
    }  # fmt: skip
    """Attribute of each kind, by its word in the feed."""

    name: Annotated[str, pydantic.StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,62}$")] = (
        pydantic.Field(description="what it is called where it is told of")
    )
    range: Range | None = pydantic.Field(
        default=None, description="least and greatest value of a column"
    )
    among: Among | None = pydantic.Field(
        default=None, alias="in", description="values that a column may have"
    )
    matches: Matches | None = pydantic.Field(
        default=None, description="pattern of a column's values"
    )
    expression: str | None = pydantic.Field(
        default=None, description="SQL over the row's columns that is true, false or null"
    )

    @pydantic.model_validator(mode="after")
    def _is_one_of_them(self) -> Self:
        if len(self._said) != 1:
            found = " and ".join(f"`{kind}`" for kind in self._said) or "none"
            message = f"it has exactly one of {', '.join(self.kinds)}; found {found}"
            raise ValueError(message)
        return self

    @property
    def kind(self) -> str:
        """Which of them it is, in the words of the feed."""
        return self._said[0]

    @property
    def _said(self) -> list[str]:
        return [word for word, name in self.kinds.items() if getattr(self, name) is not None]


class Rule(Condition):
    """What every row of a table must fulfil to be loaded; as with CHECK, the unknown (null) passes.

    Attributes:
        name: What a reject has as its constraint.
        unique, references: One of these, or of those of any condition.
    """

    kinds: ClassVar[dict[str, str]] = {
        **Condition.kinds, "unique": "unique", "references": "references",
    }  # fmt: skip

    unique: Names | None = pydantic.Field(
        default=None, description="columns that no two rows have the same values in"
    )
    references: References | None = pydantic.Field(
        default=None, description="columns whose values stand in another table"
    )


def require_own_names(conditions: tuple[Condition, ...]) -> None:
    """Refuse conditions of a table of which two have the same name.

    Raises:
        ValueError: They have.
    """
    names = [each.name for each in conditions]
    if twice := next((name for name in names if names.count(name) > 1), None):
        message = f"the name {twice} stands twice; each of a table needs its own"
        raise ValueError(message)
