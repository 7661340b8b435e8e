"""Feeds: what a YAML file may say, and which files belong to which partition.

Not here: reading the YAML (`feed_files`), opening deliveries (`ingest`), and comparing a feed with its
tables (`catalog`).
"""

from __future__ import annotations

import fnmatch
import re
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Final, Literal, Self

import pydantic
from pydantic_core import PydanticKnownError

from batch_pipelines.engine.contract import Contract
from batch_pipelines.engine.errors import DeliveryError
from batch_pipelines.engine.formats import DEFAULT, Format, Name
from batch_pipelines.engine.loaded import Batches  # noqa: TC001  # pydantic reads it at run time
from batch_pipelines.engine.queries import Query  # noqa: TC001
from batch_pipelines.engine.routes import Route
from batch_pipelines.engine.rules import Rule  # noqa: TC001 - pydantic reads it at run time

# Dagster takes any string as a partition key, '' and newlines and '...' included; a key is also a
# folder name, a part of an archive's name and a word on a command line, so it is kept to these.
PARTITION_KEY = re.compile(r"(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9_.=+-]{0,99}")
PLACEHOLDER = "{batch}"
EVERY_TABLE: Final = "*"
"""Stands for a file's table where each of its lines says its own."""
NO_TABLE: Final = "none"
"""Stands for a file's table where the feed has none: its files are entities themselves."""
FILE: Final = "file"
"""Type of an entity that is a file, where the feed has no other word for it."""
# What these mean in `crc32_audit` is given.
_TAKEN = frozenset({"chunk", "composite", "row"})
# What is said of tables and of what stands in files.
_OF_TABLES = ("format", "contract", "bulk_minimum", "ddl", "audit")
_WILD = frozenset("*?[")
_SHARE = re.compile(r"[0-9]+(\.[0-9]+)?%")
_ALL = 100
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_BUCKET = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/")

Word = Annotated[str, pydantic.StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,62}$")]


class _Part(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", serialize_by_alias=True)


class Source(_Part):
    """Where deliveries appear: files of a path, or what a query brings.

    Attributes:
        path: Pattern of the files of one delivery; `{batch}` stands for the partition key. A
            relative one starts at the folder that holds the feeds folder; one that begins with
            `s3://BUCKET/` is the keys of objects.
        settle_seconds: How long, in seconds, the files of a delivery must be unchanged before the
            sensor takes it for complete.
        query: What to read of another database, in place of files.
        batches: A table of the system that loads, in which it says which files a batch is from.
    """

    path: str = pydantic.Field(
        default="",
        description="files of one delivery, or s3://bucket/...; {batch} is the partition key",
    )
    settle_seconds: float = pydantic.Field(
        default=10.0, ge=0, description="seconds a delivery must be unchanged to count as complete"
    )
    query: Query | None = pydantic.Field(
        default=None, description="what to read of another database, in place of files"
    )
    batches: Batches | None = pydantic.Field(
        default=None, description="table of another loader that maps its batches to their files"
    )

    @pydantic.model_validator(mode="after")
    def _path_or_query(self) -> Self:
        if bool(self.path) + (self.query is not None) + (self.batches is not None) != 1:
            message = "must have one of `path`, the files' pattern, a `query`, and `batches`"
            raise ValueError(message)
        if self.query is not None and "settle_seconds" in self.model_fields_set:
            message = "`settle_seconds` is for files; a query is read in one snapshot"
            raise ValueError(message)
        return self

    @pydantic.field_validator("path")
    @classmethod
    def _one_placeholder(cls, value: str) -> str:
        url, bucket = _URL.match(value), _BUCKET.match(value)
        if url and url[1] != "s3":
            message = (
                f"must be a path or begin with s3://, not {url[1]}://: no other store can be read; "
                "have deliveries copied into a folder and write its path"
            )
            raise ValueError(message)
        if url and not bucket:
            message = (
                "must name the bucket alone behind s3://, as in s3://BUCKET/{batch}/*.csv; "
                "credentials, endpoint and region come from the environment"
            )
            raise ValueError(message)
        if bucket and {"", "."} & set(value[bucket.end() :].rstrip("/").split("/")):
            message = "must not contain '//' or '/./': a bucket takes them for other keys"
            raise ValueError(message)
        if value.count(PLACEHOLDER) != 1:
            message = f"must contain {PLACEHOLDER} exactly once: it becomes the partition key"
            raise ValueError(message)
        if ".." in PurePosixPath(value).parts:
            message = "must not contain '..': write the path it leads to"
            raise ValueError(message)
        if value.endswith("/"):
            message = "must end with the names of files, as in *.csv"
            raise ValueError(message)
        if "**" in value:
            message = "must not contain '**': a delivery's files stand in one folder"
            raise ValueError(message)
        *folders, names = PurePosixPath(value).parts
        for part in [*folders, *([names] if PLACEHOLDER in names else [])]:
            if _WILD & set(part):
                message = (
                    f"must not have wildcards in {part!r}: they may stand in the names of files only, "
                    f"and not beside {PLACEHOLDER}"
                )
                raise ValueError(message)
        return value

    @property
    def bucket(self) -> str | None:
        """The bucket that the path begins with; None where it leads to folders."""
        found = _BUCKET.match(self.path)
        return found[1] if found else None

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of the path below its bucket, its `/` or the folder where relative paths start."""
        found = _BUCKET.match(self.path)
        if found:
            return tuple(self.path[found.end() :].split("/"))
        path = PurePosixPath(self.path)
        return path.parts[1:] if path.is_absolute() else path.parts


class Table(_Part):
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
    owned_children: tuple[
        Annotated[str, pydantic.StringConstraints(pattern=r"^[^.\x00]+\.[^.\x00]+$")], ...
    ] = pydantic.Field(
        default=(), description="tables whose rows go with the rows of this one on a rollback"
    )

    @pydantic.field_validator("rules")
    @classmethod
    def _rules_are_told_apart(cls, value: tuple[Rule, ...]) -> tuple[Rule, ...]:
        names = [rule.name for rule in value]
        if twice := next((name for name in names if names.count(name) > 1), None):
            message = f"the name {twice} stands twice; each rule of a table needs its own"
            raise ValueError(message)
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
        if self.write == "none" and (self.rules or self.owned_children):
            message = (
                "`rules` and `owned_children` are for rows that are written, not for `write: none`"
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


class Thresholds(_Part):
    """How much of a batch may be set aside; above it nothing is published.

    Attributes:
        rejected_rows: Limits of the rejected records, over all tables together: a number, or a share
            of all records such as `5%`. With several, each one counts. Without any, every record that
            can be loaded is.
        minimum_sample: A share says nothing of a batch with fewer records than this.
        rejected_files: Limits of the files set aside, likewise, where the feed sets bad files aside.
    """

    rejected_rows: tuple[int | str, ...] = pydantic.Field(
        default=(), description="most rejected records: a number, a share such as 5%, or a list"
    )
    minimum_sample: int = pydantic.Field(
        default=0, ge=0, description="records below which a share is not looked at"
    )

    rejected_files: tuple[int | str, ...] = pydantic.Field(
        default=(), description="most files set aside: a number, a share such as 5%, or a list"
    )

    @pydantic.field_validator("rejected_rows", "rejected_files", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        limits = value if isinstance(value, list | tuple) else [value]
        for limit in limits:
            if isinstance(limit, str):
                right = _SHARE.fullmatch(limit) and Decimal(limit[:-1]) <= _ALL
            else:
                right = isinstance(limit, int) and not isinstance(limit, bool) and limit >= 0
            if not right:
                message = "must be a whole number from 0, or a share from 0% to 100% such as 2.5%"
                raise ValueError(message)
        return tuple(limits)

    def broken(self, rejected: int, records: int) -> str | None:
        """Say which limit is broken.

        Args:
            rejected: Records set aside.
            records: All records of the batch.

        Returns:
            The limit as the feed has it, or None.
        """
        return _broken(self.rejected_rows, rejected, records, self.minimum_sample)

    def broken_by_files(self, rejected: int, files: int) -> str | None:
        """Say which limit of files is broken.

        Args:
            rejected: Files set aside.
            files: All data files of the batch.

        Returns:
            The limit as the feed has it, or None.
        """
        return _broken(self.rejected_files, rejected, files, 0)


def _broken(
    limits: tuple[int | str, ...], rejected: int, among: int, minimum_sample: int
) -> str | None:
    for limit in limits:
        if isinstance(limit, int):
            if rejected > limit:
                return str(limit)
        # In whole numbers and not in floats: 5% of 20 is 1.
        elif among >= minimum_sample and Decimal(rejected) * _ALL > Decimal(limit[:-1]) * among:
            return limit
    return None


class Limits(_Part):
    """What a delivery may be at most; a larger one is refused before anything of it is loaded.

    Attributes:
        files: Data files.
        bytes: Bytes of all data files together.
        records: Records of all data files together.
    """

    files: int | None = pydantic.Field(default=None, ge=1, description="most data files")
    bytes: int | None = pydantic.Field(default=None, ge=1, description="most bytes in all")
    records: int | None = pydantic.Field(default=None, ge=0, description="most records in all")

    def check(self, name: str, **found: int) -> None:
        """Refuse a delivery that is too large.

        Args:
            name: Feed and partition key.
            found: What it has of `files`, `bytes` or `records`.

        Raises:
            DeliveryError: It has more than the feed allows.
        """
        for what, number in found.items():
            limit = getattr(self, what)
            if limit is not None and number > limit:
                message = (
                    f"{name}: the delivery has {number} {what}, above the feed's limit of {limit}. "
                    f"Deliver it in parts, or raise `limits: {what}` in the feed."
                )
                raise DeliveryError(message)


class Rollback(_Part):
    """How batches are taken back.

    Attributes:
        superseded_rows: Rows of a superseded batch, over all tables, up to which they are kept in the
            ledger when a correction takes their place, so that the correction can be rolled back.
        days: How long, in days, a batch can be rolled back; None for ever.
        approval: Whether `one` person is enough, or a second one has to approve.
    """

    superseded_rows: int = pydantic.Field(
        default=1_000_000, ge=0, description="most superseded rows that are kept to come back"
    )
    days: int | None = pydantic.Field(
        default=None,
        ge=1,
        description="days for which a batch can be rolled back; always by default",
    )
    approval: Literal["one", "two"] = pydantic.Field(
        default="one", description="how many people a rollback takes"
    )


def _or_none(schema: dict[str, Any]) -> None:
    """Let the JSON Schema of tables take the word `none`."""
    listed = {name: schema.pop(name) for name in ("type", "items")}
    schema["anyOf"] = [{**listed, "minItems": 1}, {"const": NO_TABLE}]


class Feed(_Part):
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
        audit: What has lines of its own in `crc32_audit`: each `file` and chunk, or each `row`, too.
        format: How the files are written.
        contract: What becomes of a delivery that brings other columns than the one before it.
        thresholds: How much of a batch may be set aside.
        on_bad_file: What a file does that is not what its sender or its store says: `fail` the batch, or
            it is `set_aside`, none of its rows parsed, and the batch goes on with the others.
        limits: What a delivery may be at most.
        bulk_minimum: Rows of one column signature, below which each is inserted by itself.
        identity: Whether the same content under another partition key is a duplicate (`feed`) or
            a delivery of its own (`partition`).
        ddl: SQL file beside the feed file that creates its tables where they are missing.
        validation: Of a feed that is reconciled, in its file `validate`: `each` batch by itself, or all
            that are new `together`.
        owners: Who answers for the feed: e-mail addresses or `team:NAME`.
        rollback: How its batches are taken back.
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
    owners: tuple[str, ...] = pydantic.Field(default=(), description="e-mail or team:NAME")
    rollback: Rollback = pydantic.Field(
        default=Rollback(), description="how its batches are taken back"
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

    def key_of(self, path: str) -> str | None:
        """Read the partition key out of a file's path.

        Args:
            path: Path of a file from where the feed's path starts; see `Source.parts`.

        Returns:
            The key, or None where the file does not match or the key is not a valid one.
        """
        parts, expected = path.split("/"), self.source.parts
        if len(parts) != len(expected):
            return None
        key = None
        for part, template in zip(parts, expected, strict=True):
            before, placeholder, after = template.partition(PLACEHOLDER)
            if placeholder and part.startswith(before) and part.endswith(after):
                key = part[len(before) : len(part) - len(after)]
            elif not fnmatch.fnmatchcase(part, template):
                return None
        return key if key and is_key(key) else None


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
        f"{key!r} is not a partition key: expected 1 to 100 letters, digits, or _ . = + -, "
        "beginning with a letter or digit, without '..'. Rename the delivery."
    )
    raise DeliveryError(message)


def is_key(text: str) -> bool:
    """Say whether a text is a valid partition key."""
    return PARTITION_KEY.fullmatch(text) is not None and ".." not in text
