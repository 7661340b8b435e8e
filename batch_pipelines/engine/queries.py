"""Queries against another database: what a feed's `source.query` may say. Nothing is connected here."""

from __future__ import annotations

from typing import Annotated, Final, Self

import pydantic

BATCH: Final = "{batch}"
"""Stands in a SELECT for the partition key, which is bound as a parameter."""

Name = Annotated[str, pydantic.StringConstraints(min_length=1)]


class Query(pydantic.BaseModel):
    """What to read of another database, and how.

    Attributes:
        url_variable: Name of the environment variable with the database's URL, as SQLAlchemy writes
            it. The URL is a secret, so it stands nowhere else.
        table: A table that is read as a whole, with its schema where it has one.
        select: Or a SELECT; `{batch}` in it stands for the partition key.
        key: Columns that tell every row from every other; it is read in ranges of them.
        rows: How many rows a range has at most.
        keys: A SELECT that lists the partition keys that there are; what stands beside a key tells
            whether its rows have changed.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    url_variable: Annotated[str, pydantic.StringConstraints(pattern=r"^[A-Z][A-Z0-9_]*$")] = (
        pydantic.Field(description="environment variable that holds the database's URL")
    )
    table: Name | None = pydantic.Field(default=None, description="table that is read as a whole")
    select: Name | None = pydantic.Field(
        default=None, description="SELECT to read; {batch} is the partition key, as a parameter"
    )
    key: tuple[Name, ...] = pydantic.Field(
        min_length=1, description="columns that tell every row from every other"
    )
    rows: int = pydantic.Field(default=50_000, ge=1, description="most rows of a range")
    keys: Name | None = pydantic.Field(
        default=None,
        description="SELECT of the partition keys, and of what changes with their rows",
    )

    @pydantic.field_validator("select", "keys")
    @classmethod
    def _one_statement(cls, value: str | None) -> str | None:
        text = (value or "").strip().rstrip(";").rstrip()
        for place in range(text.count(BATCH)):
            before = BATCH.join(text.split(BATCH)[: place + 1])
            if before.count("'") % 2:
                message = (
                    f"{BATCH} must stand outside of quotes: it is bound as a parameter. "
                    f"Write LIKE {BATCH} || '-%', and not LIKE '{BATCH}-%'"
                )
                raise ValueError(message)
        return text or None

    @pydantic.field_validator("key")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            message = "a column stands twice"
            raise ValueError(message)
        return value

    @pydantic.model_validator(mode="after")
    def _table_or_select(self) -> Self:
        if (self.table is None) == (self.select is None):
            message = "must have `table`, or a `select`, and not both"
            raise ValueError(message)
        if self.keys is not None and BATCH in self.keys:
            message = f"`keys` lists the partition keys, so there is no {BATCH} in it yet"
            raise ValueError(message)
        if self.keys is not None and not self.is_partitioned:
            message = f"`keys` needs a `select` with {BATCH}: every key would bring the same rows"
            raise ValueError(message)
        return self

    @property
    def is_partitioned(self) -> bool:
        """Whether a partition key chooses rows; otherwise every delivery is the whole."""
        return BATCH in (self.select or "")
