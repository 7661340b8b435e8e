"""A table that a feed fills, and how."""

from __future__ import annotations

from typing import Annotated, Literal, Self

import pydantic

from batch_pipelines.engine.contract import Contract
from batch_pipelines.engine.feed_parts.part import Part
from batch_pipelines.engine.formats import Name  # noqa: TC001  # pydantic reads it at run time
from batch_pipelines.engine.rules import Condition, Rule, require_own_names


class Table(Part):
    """A target table.

    Attributes:
        table: Its name with schema, as in `public.flights`.
        files: Pattern of the delivery's file names that fill it.
        match: Of JSON lines with a `table_field`, what that says in the lines of this table.
        header: Names of the columns where its files do not have them; in place of `format.header`.
        write: `insert` rows, or `upsert`: a row whose key the table has is updated, in the columns that
            its record brings, and an image of it is kept. Or insert each by an `individual` statement.
            Or `none`: something else loads it, and its batches are reconciled.
        key: Columns of the key by which rows are upserted, or told apart where they are reconciled; the
            primary key by default.
        batch_column: Column that holds the id of the batch that the other system loaded a row in.
        conflict: What becomes of a record whose key is taken, by a row of the table or by an earlier
            record: `quarantine`, `skip` (set aside too, but counted as skipped and held against no
            threshold), or `fail` the batch.
        contract: What becomes of other columns than before, where the feed's word is not meant.
        rules: What each of its rows must fulfil besides.
        critical_when: Conditions of which each makes a row critical: people are told of it at once.
        server_changed: Columns in which a trigger stores something else than is sent; no row is held
            against what was sent there.
        principal: With `audit_event: row`, the column that says who made a record.
        owned_children: Tables whose rows belong to the rows of this one that they refer to: where a
            rollback takes such a row away, they go with it.
    """

    table: Annotated[str, pydantic.StringConstraints(pattern=r"^[^.\x00]+\.[^.\x00]+$")] = (
        pydantic.Field(description="target table with its schema, e.g. public.flights")
    )
    files: str = pydantic.Field(
        default="*", description="file names of the delivery that fill this table"
    )
    match: str | None = pydantic.Field(
        default=None, description="what `format.table_field` says in the lines of this table"
    )
    header: tuple[Name, ...] = pydantic.Field(
        default=(), description="names of the columns where this table's files do not have them"
    )
    write: Literal["insert", "upsert", "individual", "none"] = pydantic.Field(
        default="insert",
        description="insert rows, update those with the same key, insert one by one, or only compare",
    )
    key: tuple[str, ...] = pydantic.Field(
        default=(),
        description="columns by which rows are upserted or reconciled; the primary key by default",
    )
    batch_column: str = pydantic.Field(
        default="", description="with `write: none`: column with the other system's batch id"
    )
    conflict: Literal["quarantine", "skip", "fail"] = pydantic.Field(
        default="quarantine", description="what becomes of a record whose key is taken"
    )
    contract: Contract = pydantic.Field(
        default=Contract(), description="what becomes of other columns than before, in this table"
    )
    rules: tuple[Rule, ...] = pydantic.Field(
        default=(), description="what each row must fulfil besides the table's constraints"
    )
    critical_when: tuple[Condition, ...] = pydantic.Field(
        default=(), description="conditions of which each makes a row critical, to be told at once"
    )
    server_changed: tuple[Name, ...] = pydantic.Field(
        default=(), description="columns in which a trigger stores something else than is sent"
    )
    principal: Name | None = pydantic.Field(
        default=None, description="with `audit_event: row`: the column that says who made a record"
    )
    owned_children: tuple[
        Annotated[str, pydantic.StringConstraints(pattern=r"^[^.\x00]+\.[^.\x00]+$")], ...
    ] = pydantic.Field(
        default=(), description="tables whose rows go with the rows of this one on a rollback"
    )

    @pydantic.field_validator("rules", "critical_when")
    @classmethod
    def _are_told_apart(cls, value: tuple[Condition, ...]) -> tuple[Condition, ...]:
        require_own_names(value)
        return value

    @pydantic.model_validator(mode="after")
    def _only_upserts_have_a_key(self) -> Self:
        if self.key and self.write not in {"upsert", "none"}:
            message = "`key` goes with `write: upsert` or `write: none` alone"
            raise ValueError(message)
        return self

    @pydantic.model_validator(mode="after")
    def _others_say_their_batches(self) -> Self:
        if self.batch_column and self.write != "none":
            message = "`batch_column` goes with `write: none` alone"
            raise ValueError(message)
        if self.write == "none" and (self.rules or self.critical_when or self.owned_children):
            message = (
                "`rules`, `critical_when` and `owned_children` are for rows that are written, not for "
                "`write: none`"
            )
            raise ValueError(message)
        return self

    def upsert_key(self, primary_key: tuple[str, ...]) -> tuple[str, ...]:
        """Give the columns by which rows are upserted; none where they are inserted.

        Args:
            primary_key: Columns of the table's primary key.
        """
        return (self.key or primary_key) if self.write == "upsert" else ()

    @property
    def schema_name(self) -> str:
        """The part before the dot."""
        return self.table.split(".")[0]

    @property
    def name(self) -> str:
        """The part after the dot."""
        return self.table.split(".")[1]
