"""Feeds: what a YAML file may say, and which files belong to which partition.

Not here: reading the YAML (`feed_files`), opening deliveries (`ingest`), and comparing a feed with its
tables (`catalog`).
"""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path  # noqa: TC003
from typing import Annotated, Any, Final, Literal

import pydantic
from pydantic_core import PydanticKnownError

from batch_pipelines.engine.contract import Contract
from batch_pipelines.engine.errors import DeliveryError
from batch_pipelines.engine.feed_parts.archiving import Archiving
from batch_pipelines.engine.feed_parts.compliance import Compliance
from batch_pipelines.engine.feed_parts.monitor import Monitor
from batch_pipelines.engine.feed_parts.part import Part
from batch_pipelines.engine.feed_parts.partitions import Partitions  # noqa: TC001  # pydantic reads it
from batch_pipelines.engine.feed_parts.rerun import Rerun
from batch_pipelines.engine.feed_parts.retention import Retention
from batch_pipelines.engine.feed_parts.source import PLACEHOLDER, Source
from batch_pipelines.engine.feed_parts.table import Table  # noqa: TC001  # pydantic reads it
from batch_pipelines.engine.feed_parts.telling import Critical
from batch_pipelines.engine.feed_parts.tolerance import Limits, Rollback, Thresholds
from batch_pipelines.engine.formats import DEFAULT, Format
from batch_pipelines.engine.queueing import Priority  # noqa: TC001  # pydantic reads it
from batch_pipelines.engine.routes import Route
from batch_pipelines.engine.windowing.windows import Windows

# Dagster takes any string as a partition key, '' and newlines and '...' included; a key is also a
# folder name, a part of an archive's name and a word on a command line, so it is kept to these.
PARTITION_KEY = re.compile(r"(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9_.=+-]{0,99}")
EVERY_TABLE: Final = "*"
"""Stands for a file's table where each of its lines says its own."""
NO_TABLE: Final = "none"
"""Stands for a file's table where the feed has none: its files are entities themselves."""
FILE: Final = "file"
"""Type of an entity that is a file, where the feed has no other word for it."""
# What these mean in `crc32_audit` is given.
_TAKEN = frozenset({"chunk", "composite", "row"})
# What is said of tables and of what stands in files.
_OF_TABLES = (
    "format", "contract", "bulk_minimum", "ddl", "audit", "audit_event", "one_writer", "publish",
    "validate_digests",
)  # fmt: skip

Word = Annotated[str, pydantic.StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,62}$")]


def _or_none(schema: dict[str, Any]) -> None:
    """Let the JSON Schema of tables take the word `none`."""
    listed = {name: schema.pop(name) for name in ("type", "items")}
    schema["anyOf"] = [{**listed, "minItems": 1}, {"const": NO_TABLE}]


class Feed(Part):
    """One kind of import.

    Attributes:
        feed: Its name, also the name of its Dagster job and the first part of its asset keys.
        version: Raised by hand when the same files shall be loaded again with another meaning;
            part of a delivery's identity.
        description: One sentence for people.
        source: Where deliveries appear.
        tables: The tables that one delivery fills together; empty where the feed says `none`, because
            its files (documents, images) are not read, only proven and archived.
        entity_type: What a file is called in `crc32_audit`, for feeds without tables.
        validate_digests: Whether validate takes the row digests of what is stored once more.
        audit: What has lines of its own in `crc32_audit`: each `file` and chunk, or each `row`, too.
        audit_event: Of what a batch has entries in the audit trail: of its steps (`batch`), or of each
            record that it has written, too (`row`).
        format: How the files are written.
        contract: What becomes of a delivery that brings other columns than the one before it.
        thresholds: How much of a batch may be set aside.
        on_bad_file: What a file does that is not what its sender or its store says: `fail` the batch, or
            it is `set_aside`, none of its rows parsed, and the batch goes on with the others.
        publish: Whether a batch becomes visible `direct`, before it is validated from outside, or only
            `after_validation`: until then its rows wait in logged staging tables.
        on_validation_failure: What becomes of a batch that is visible and differs from its source:
            `keep` it, visible and `VALIDATION_FAILED`, or `roll_back` at once.
        limits: What a delivery may be at most.
        bulk_minimum: Rows of one column signature, below which each is inserted by itself.
        identity: Whether the same content under another partition key is a duplicate (`feed`) or
            a delivery of its own (`partition`).
        ddl: SQL file beside the feed file that creates its tables where they are missing.
        validation: Of a feed that is reconciled, in its file `validate`: `each` batch by itself, or all
            that are new `together`.
        partitions: The windows of time that its deliveries are of; None where whatever is delivered is
            a partition.
        priority: Which of its runs and those of other feeds leaves the queue first.
        one_writer: Whether nobody else may write a table while one of its batches does.
        owners: Who answers for the feed: e-mail addresses or `team:NAME`.
        rollback: How its batches are taken back.
        monitor: How its batches are watched, and what is done when too much goes wrong.
        critical: Who is told of critical rows, those that fulfil a `critical_when` of their table.
        rerun: How its failed partitions are run again by themselves.
        archive: How they are archived, and where.
        compliance: Which regulation applies to its data, for events and reports.
        retention: How long what they leave is kept.
    """

    feed: Word = pydantic.Field(description="name of the feed")
    version: int = pydantic.Field(
        default=1, ge=1, description="raise it to load the same files again"
    )
    description: str = pydantic.Field(default="", description="one sentence for people")
    source: Source
    tables: tuple[Table, ...] = pydantic.Field(
        description="tables that one delivery fills together, or `none`: files are only proven",
        json_schema_extra=_or_none,
    )
    entity_type: Word = pydantic.Field(
        default=FILE, description="what a file is, for feeds without tables: document, image ..."
    )
    audit: Literal["file", "row"] = pydantic.Field(
        default="file", description="what is audited: files and chunks, or each row besides"
    )
    audit_event: Literal["batch", "row"] = pydantic.Field(
        default="batch", description="whether each record has an entry in the audit trail: row"
    )
    validate_digests: bool = pydantic.Field(
        default=False, description="whether validate takes the row digests of all rows once more"
    )
    format: Format = pydantic.Field(default=DEFAULT, description="how the files are written")
    contract: Contract = pydantic.Field(
        default=Contract(), description="what becomes of other columns than before"
    )
    thresholds: Thresholds = pydantic.Field(
        default=Thresholds(), description="how much of a batch may be set aside"
    )
    on_bad_file: Literal["fail", "set_aside"] = pydantic.Field(
        default="fail", description="what a file does that is not what its sender says"
    )
    publish: Literal["direct", "after_validation"] = pydantic.Field(
        default="direct", description="when rows become visible: at once, or validated alone"
    )
    on_validation_failure: Literal["keep", "roll_back"] = pydantic.Field(
        default="keep", description="what becomes of a published batch whose validation fails"
    )
    limits: Limits = pydantic.Field(default=Limits(), description="what a delivery may be at most")
    bulk_minimum: int = pydantic.Field(
        default=0, ge=0, description="rows of one column signature that are written at once"
    )
    identity: Literal["partition", "feed"] = pydantic.Field(
        default="partition", description="where the same content counts as a duplicate"
    )
    ddl: str | None = pydantic.Field(default=None, description="SQL file that creates the tables")
    # pydantic's models have a method `validate`.
    validation: Literal["each", "together"] = pydantic.Field(
        default="each", alias="validate", description="with `write: none`: how batches are compared"
    )
    partitions: Partitions | None = pydantic.Field(
        default=None, description="windows of time, one delivery each; otherwise what is found"
    )
    priority: Priority = pydantic.Field(
        default="normal", description="whose runs leave the queue first"
    )
    one_writer: bool = pydantic.Field(
        default=False, description="nobody else writes its tables while one of its batches does"
    )
    owners: tuple[str, ...] = pydantic.Field(default=(), description="e-mail or team:NAME")
    rollback: Rollback = pydantic.Field(
        default=Rollback(), description="how its batches are taken back"
    )
    monitor: Monitor = pydantic.Field(
        default=Monitor(), description="how its batches are watched, and what a breach does"
    )
    critical: Critical = pydantic.Field(
        default=Critical(), description="who is told at once of rows that are critical"
    )
    rerun: Rerun = pydantic.Field(
        default=Rerun(), description="how its failed partitions are run again"
    )
    archive: Archiving = pydantic.Field(
        default=Archiving(), description="how its batches are archived, and where"
    )
    compliance: Compliance = pydantic.Field(
        default=Compliance(), description="which regulation applies to its data"
    )
    retention: Retention = pydantic.Field(
        default=Retention(), description="how long what they leave is kept, and by which law"
    )

    @pydantic.field_validator("owners")
    @classmethod
    def _owners_as_dagster_has_them(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for owner in value:
            if not re.fullmatch(r"team:\w+|[^@\s]+@[^@\s]+\.[^@\s]+", owner):
                message = "an owner is an e-mail address or team:NAME"
                raise ValueError(message)
        return value

    @pydantic.field_validator("tables", mode="before")
    @classmethod
    def _none_or_some(cls, value: object) -> object:
        if value == NO_TABLE:
            return ()
        if value == []:
            few = {"field_type": "Tuple", "min_length": 1, "actual_length": 0}
            raise PydanticKnownError("too_short", few)
        return value

    @pydantic.field_validator("entity_type")
    @classmethod
    def _not_another_entity(cls, value: str) -> str:
        if value in _TAKEN:
            message = f"{value!r} is taken: it stands for something else in crc32_audit"
            raise ValueError(message)
        return value

    @pydantic.model_validator(mode="after")
    def _without_tables_nothing_is_said_of_them(self) -> Feed:
        if self.tables:
            if self.entity_type != FILE:
                message = "`entity_type` is for feeds with `tables: none`"
                raise ValueError(message)
            return self
        said = [name for name in _OF_TABLES if name in self.model_fields_set]
        said += ["thresholds.rejected_rows"] if self.thresholds.rejected_rows else []
        said += ["limits.records"] if self.limits.records is not None else []
        said += ["source.query"] if self.source.query is not None else []
        if said:
            message = f"with `tables: none` there is nothing that `{said[0]}` could be about"
            raise ValueError(message)
        return self

    @pydantic.model_validator(mode="after")
    def _principals_are_of_entries(self) -> Feed:
        if self.audit_event != "row" and any(table.principal for table in self.tables):
            message = "`principal` of a table goes with `audit_event: row` alone"
            raise ValueError(message)
        return self

    @pydantic.field_validator("tables")
    @classmethod
    def _tables_are_told_apart(cls, value: tuple[Table, ...]) -> tuple[Table, ...]:
        names = [table.table for table in value]
        if len(set(names)) < len(names):
            message = "a table stands twice; one entry with a wider pattern does it"
            raise ValueError(message)
        matches = [table.match for table in value if table.match is not None]
        if len(set(matches)) < len(matches):
            message = "a `match:` stands twice; each table needs its own"
            raise ValueError(message)
        if not matches and len(names) > 1 and any(table.files == "*" for table in value):
            message = "with more than one table each needs its own `files:` pattern"
            raise ValueError(message)
        return value

    @pydantic.model_validator(mode="after")
    def _names_are_of_one_table(self) -> Feed:
        if isinstance(self.format.header, tuple) and len(self.tables) > 1:
            message = "`format.header` is of one table; write `header:` in each of `tables:`"
            raise ValueError(message)
        by_line = self.format.table_field is not None
        if any((table.match is not None) != by_line for table in self.tables):
            message = "`format.table_field` and a `match:` in each of the tables go together"
            raise ValueError(message)
        return self

    @pydantic.model_validator(mode="after")
    def _writes_or_reconciles(self) -> Feed:
        if len({table.write == "none" for table in self.tables}) > 1:
            message = "`write: none` holds for all tables of a feed or for none; write two feeds"
            raise ValueError(message)
        if not self.is_reconciled and (self.source.batches or self.validation != "each"):
            message = "`source.batches` and `validate` go with `write: none` alone"
            raise ValueError(message)
        if self.is_reconciled and self.one_writer:
            message = "`one_writer` is for tables that are written, not for `write: none`"
            raise ValueError(message)
        needed = self.is_reconciled and not self.is_compared_whole
        if any(bool(table.batch_column) != needed for table in self.tables):
            message = (
                "a table with `write: none` needs a `batch_column`, where its loader keeps batch ids; "
                "but one that is compared with a query without {batch} has none"
            )
            raise ValueError(message)
        of_files = self.validation != "each" or any(table.key for table in self.tables)
        if self.is_reconciled and self.source.query is not None and of_files:
            message = "`tables[].key` and `validate` are for files; a query has a `key` of its own"
            raise ValueError(message)
        return self

    @pydantic.model_validator(mode="after")
    def _windows_are_of_what_is_delivered(self) -> Feed:
        if self.partitions is None:
            return self
        if self.is_reconciled:
            message = (
                "`partitions` is for what is delivered; with `write: none` others say the keys"
            )
            raise ValueError(message)
        query = self.source.query
        if self.partitions.late_after is not None and query is not None and query.keys is None:
            message = (
                "`partitions.late_after` needs `source.query.keys`: without it a query has an answer "
                "for every window, and none is late"
            )
            raise ValueError(message)
        return self

    @pydantic.model_validator(mode="after")
    def _gathered_files_fill_one_table(self) -> Feed:
        if self.source.gather is not None and self.partitions is not None:
            message = (
                "`source.gather` gives batches keys of their own: it goes without `partitions`"
            )
            raise ValueError(message)
        several = len(self.tables) > 1 and self.format.table_field is None
        if self.source.gather is not None and (several or self.is_reconciled):
            message = (
                "`source.gather` is for one table that is written, or for lines that say their table: "
                "a batch may have files of one kind only"
            )
            raise ValueError(message)
        return self

    @pydantic.model_validator(mode="after")
    def _tells_of_what_is_critical(self) -> Feed:
        if self.critical != Critical() and not self.has_critical:
            message = (
                "`critical` needs a `critical_when` in one of `tables`, that says which rows are"
            )
            raise ValueError(message)
        return self

    @property
    def has_critical(self) -> bool:
        """Whether it says of some table which rows are critical."""
        return any(table.critical_when for table in self.tables)

    @property
    def windows(self) -> Windows | None:
        """The windows of time that are its partitions; None where they are discovered."""
        return None if self.partitions is None else Windows(self.partitions)

    @property
    def is_compared_whole(self) -> bool:
        """Whether its table is held as a whole against one of another database."""
        query = self.source.query
        return self.is_reconciled and query is not None and not query.is_partitioned

    @property
    def is_reconciled(self) -> bool:
        """Whether something else loads its tables, so that nothing is written here."""
        return bool(self.tables) and self.tables[0].write == "none"

    @pydantic.model_validator(mode="after")
    def _publishes_what_it_writes(self) -> Feed:
        if self.publish == "after_validation" and self.is_reconciled:
            message = "with `write: none` nothing is written that `publish` could be about"
            raise ValueError(message)
        return self

    @pydantic.model_validator(mode="after")
    def _rolls_back_what_it_may(self) -> Feed:
        if self.on_validation_failure == "keep":
            return self
        if self.publish == "after_validation":
            message = (
                "with `publish: after_validation` nothing is visible that `on_validation_failure` could "
                "roll back; leave it out"
            )
            raise ValueError(message)
        if self.is_reconciled:
            message = (
                "with `write: none` nothing is written that `on_validation_failure` could roll back"
            )
            raise ValueError(message)
        if self.rollback.approval == "two":
            message = (
                "`on_validation_failure: roll_back` asks nobody, and `rollback.approval: two` wants two "
                "people; write `keep`, or `approval: one`"
            )
            raise ValueError(message)
        return self

    @pydantic.model_validator(mode="after")
    def _only_what_is_set_aside_has_a_limit(self) -> Feed:
        if self.thresholds.rejected_files and self.on_bad_file == "fail":
            message = "`thresholds.rejected_files` goes with `on_bad_file: set_aside` alone"
            raise ValueError(message)
        return self

    @pydantic.model_validator(mode="after")
    def _a_query_fills_one_table(self) -> Feed:
        if (
            self.source.query is not None
            and self.tables
            and (len(self.tables) > 1 or self.tables[0].files != "*")
        ):
            message = "a query fills one table, without `files:`; write a feed for each table"
            raise ValueError(message)
        return self

    def target_of(self, file_name: str) -> str:
        """Say which table a file of a delivery fills.

        Args:
            file_name: Name of the file without its folder.

        Returns:
            The table's name, `EVERY_TABLE` where each line says its own, or `NO_TABLE`.

        Raises:
            DeliveryError: It matches no table, or several.
        """
        if not self.tables:
            return NO_TABLE
        by_line = self.format.table_field is not None
        return EVERY_TABLE if by_line else self.table_of(file_name).table

    def form_of(self, full_name: str) -> Format:
        """Say how the files of a table are written.

        Args:
            full_name: Its name with schema, or `EVERY_TABLE`.

        Returns:
            The feed's format, with the table's own header where it has one.
        """
        header = next((table.header for table in self.tables if table.table == full_name), ())
        return self.format.model_copy(update={"header": header}) if header else self.format

    def route(self, full_name: str) -> Route | None:
        """Say which lines are a table's.

        Args:
            full_name: The table's name with schema.

        Returns:
            The route, or None where a file is of one table.
        """
        return self.routes.get(full_name)

    @property
    def routes(self) -> dict[str, Route]:
        """The routes of all tables by their names; none where a file is of one table."""
        field = self.format.table_field
        if field is None:
            return {}
        matches = {table.table: table.match or "" for table in self.tables}
        return {
            name: Route(field, own, frozenset(matches.values()) - {own}, place == 0)
            for place, (name, own) in enumerate(matches.items())
        }

    def table_of(self, file_name: str) -> Table:
        """Say which table a file of a delivery fills.

        Args:
            file_name: Name of the file without its folder.

        Returns:
            The table whose pattern it matches.

        Raises:
            DeliveryError: It matches no table, or several.
        """
        matching = [t for t in self.tables if fnmatch.fnmatchcase(file_name, t.files)]
        if len(matching) == 1:
            return matching[0]
        found = "no table" if not matching else " and ".join(t.table for t in matching)
        patterns = ", ".join(f"{t.files} -> {t.table}" for t in self.tables)
        message = (
            f"{file_name}: its name matches {found} of feed {self.feed} ({patterns}). "
            "Rename the file or correct `files:` in the feed."
        )
        raise DeliveryError(message)

    def table_named(self, full_name: str) -> Table:
        """Find a table by its name.

        Args:
            full_name: Its name with schema; it is one of the feed's.

        Returns:
            The table.
        """
        return next(table for table in self.tables if table.table == full_name)

    def contract_of(self, full_name: str) -> Contract:
        """Say what becomes of other columns than before in a table: its own word, or the feed's.

        Args:
            full_name: The table's name with schema; it is one of the feed's.

        Returns:
            The contract.
        """
        return self.contract.but(self.table_named(full_name).contract)

    def pattern(self, key: str, root: Path) -> str:
        """Give the full pattern of the files that belong to a partition.

        Args:
            key: Partition key, already checked by `check_key`.
            root: Folder where relative paths start.

        Returns:
            A path or URL whose last part may hold wildcards.
        """
        path = self.source.path.replace(PLACEHOLDER, key)
        return str(root / path) if self.source.bucket is None else path


def check_key(key: str) -> str:
    """Accept a partition key or say what is wrong with it.

    Args:
        key: The key as somebody typed or delivered it.

    Returns:
        The same key.

    Raises:
        DeliveryError: It is no valid key.
    """
    if is_key(key):
        return key
    message = (
        f"{key[:101]!r} is not a partition key: expected 1 to 100 letters, digits, or _ . = + -, "
        "beginning with a letter or digit, without '..'. Rename the delivery."
    )
    raise DeliveryError(message)


def is_key(text: str) -> bool:
    """Say whether a text is a valid partition key."""
    return PARTITION_KEY.fullmatch(text) is not None and ".." not in text
