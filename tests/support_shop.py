"""A shop whose orders arrive as one CSV a day: what the tests of Dagster, command line and UI import.

The feed folder and landing are real files, the database and Dagster's storage a real PostgreSQL.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import crc32c
import dagster as dg
import pytest
from dagster._core.definitions.reconstruct import build_reconstructable_job

from batch_pipelines.definitions import build_defs
from batch_pipelines.engine.feed_files import load_feeds
from batch_pipelines.engine.ledger import archives, batches
from batch_pipelines.engine.ledger.stages import STAGES
from batch_pipelines.engine.postgres.database import DAGSTER_SCHEMA, Database
from batch_pipelines.engine.postgres.migrate import create_tables, upgrade
from batch_pipelines.engine.roles.settle import open_schema
from batch_pipelines.engine.settings import load_settings
from batch_pipelines.instance import open_instance, prepared
from batch_pipelines.partitions import register
from tests.support_databases import let_writer_in

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.settings import Settings

FEED = "orders"
DAY = "2024-05-01"

_YAML = """\
feed: orders
description: Orders of a shop, one delivery a day.
source:
  path: landing/orders/{batch}/*.csv
  settle_seconds: 0
tables:
  - table: public.orders
ddl: orders.sql
owners: [team:shop]
"""
_SQL = """\
CREATE TABLE IF NOT EXISTS public.customers (id integer PRIMARY KEY, name text NOT NULL);
INSERT INTO public.customers VALUES (1, 'Ada'), (2, 'Grace'), (3, 'Edsger') ON CONFLICT DO NOTHING;
CREATE TABLE IF NOT EXISTS public.orders (
    id integer PRIMARY KEY,
    customer integer NOT NULL REFERENCES public.customers,
    placed date NOT NULL,
    amount numeric(10, 2) NOT NULL CHECK (amount > 0),
    note text,
    import_batch_id uuid
);
CREATE INDEX IF NOT EXISTS orders_import_batch_id ON public.orders (import_batch_id);
"""
_SET_BY_PREPARED = ("DAGSTER_HOME", "BATCH_PIPELINES_DAGSTER_STORAGE")
# A failing run of a test that wants it to fail would fill the screen.
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
_HEAD = "id,customer,placed,amount,note\n"


def open_shop(folder: Path, *, marker: str | None = None) -> None:
    """Write the shop's feed folder.

    Args:
        folder: Where `feeds/` is made; landing is beside it.
        marker: The file that makes a delivery complete; None means that each is at once.
    """
    feeds = folder / "feeds"
    feeds.mkdir(parents=True)
    complete = "settle_seconds: 0" if marker is None else f"complete: {{marker: {marker}}}"
    (feeds / "orders.yaml").write_text(_YAML.replace("settle_seconds: 0", complete))
    (feeds / "orders.sql").write_text(_SQL)


def orders(count: int, *, first: int = 1, customer: int = 1) -> str:
    """Write a day's orders as CSV.

    Args:
        count: How many.
        first: Id of the first.
        customer: Who placed them.

    Returns:
        The file's text.
    """
    return _HEAD + "".join(
        f"{i},{customer},{DAY},{i % 97 + 1}.{i % 100:02},order {i}\n"
        for i in range(first, first + count)
    )


def deliver(folder: Path, key: str, text: str, *, sidecar: bool = False) -> Path:
    """Put a delivery into landing, in place of an earlier one of its partition.

    Args:
        folder: The folder given to `open_shop`.
        key: Partition key.
        text: The CSV file's content.
        sidecar: Whether the sender promises its CRC32C.

    Returns:
        The file.
    """
    path = folder / "landing" / FEED / key / "orders.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    if sidecar:
        crc = crc32c.crc32c(text.encode())
        path.with_name("orders.csv.crc32c").write_text(f"{crc:08x}\n")
    return path


def orders_job() -> dg.JobDefinition:
    """Make the job from the environment, where a test has set it; Dagster calls this by name."""
    return build_defs().resolve_job_def(FEED)


@dataclass
class Shop:
    """The shop, open: folders, database and Dagster instance.

    Attributes:
        folder: Holds `feeds/` and `landing/`.
        settings: The settings, which the environment holds too.
        database: Target and ledger, and in a schema of its own Dagster's storage, as their owner sees
            them. What is tested logs in as a writer.
        instance: Dagster's instance.
    """

    folder: Path
    settings: Settings
    database: Database
    instance: dg.DagsterInstance

    @property
    def feed(self) -> Feed:
        """The feed, read from its file."""
        return load_feeds(self.settings.feeds)[FEED]

    @property
    def defs(self) -> dg.Definitions:
        """The definitions of the feed alone."""
        return build_defs(feeds=[self.feed], load=lambda: self.settings)

    def deliver(self, key: str, text: str, *, sidecar: bool = False) -> Path:
        """Put a delivery into landing."""
        return deliver(self.folder, key, text, sidecar=sidecar)

    def run(
        self, key: str, *stages: str, force: bool = False, tags: dict[str, str] | None = None
    ) -> dg.ExecuteInProcessResult:
        """Materialize a partition.

        Args:
            key: Partition key.
            stages: Those selected; none means all.
            force: As in the launchpad.
            tags: Of the run.
        """
        register(self.instance, self.feed, [key])
        config: dict[str, Any] = dict(_QUIET)
        if "ingest" in (stages or STAGES):
            config["ops"] = {"orders__ingest": {"config": {"force": force}}}
        return self.defs.resolve_job_def(FEED).execute_in_process(
            instance=self.instance,
            partition_key=key,
            asset_selection=[stage_key(stage) for stage in stages] or None,
            run_config=config,
            tags=tags,
            raise_on_error=False,
        )

    def run_again_from_failure(self, run_id: str) -> dg.JobExecutionResult:
        """Re-execute a failed run from its failure, as the UI and the daemon's retries do."""
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return dg.execute_job(
            build_reconstructable_job("tests.support_shop", "orders_job"),
            self.instance,
            run_config=run.run_config,
            tags=run.tags,
            reexecution_options=dg.ReexecutionOptions.from_failure(run_id, self.instance),
        )

    def query(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Ask the database; parameters are numbered $1, $2 ... as in SQL itself."""
        with self.database.connect("test") as connection:
            cursor = connection.execute(sql.encode(), parameters or None)
            return cursor.fetchall() if cursor.description else []

    def rows(self) -> list[tuple[Any, ...]]:
        """All rows of the table, with their stamps."""
        return self.query("SELECT *, import_batch_id::text FROM public.orders ORDER BY id")

    def stamps(self) -> set[str]:
        """The batch ids that stand in the table."""
        return {row[0] for row in self.query("SELECT import_batch_id::text FROM public.orders")}

    def batches(self) -> list[Batch]:
        """All batches, oldest first."""
        with self.database.connect("test") as connection:
            return batches.history(connection)[::-1]

    def batch(self, run_id: str) -> Batch:
        """The batch that a run is attached to."""
        with self.database.connect("test") as connection:
            batch = batches.of_run(connection, run_id)
        assert batch is not None
        return batch

    def runs(self, batch_id: str) -> list[str]:
        """The runs that worked on a batch."""
        with self.database.connect("test") as connection:
            return batches.runs(connection, batch_id)

    def is_archived(self, batch_id: str) -> bool:
        """Say whether a batch has its bag."""
        with self.database.connect("test") as connection:
            return archives.bag(connection, batch_id) is not None

    def materialized(self, stage: str) -> set[str]:
        """The partitions of a stage that Dagster shows as materialized, and not as failed."""
        found = self.instance.get_status_by_partition(
            stage_key(stage),
            self.instance.get_dynamic_partitions(FEED),
            self.feed_partitions(),
        )
        return {
            key
            for key, status in (found or {}).items()
            if status is not None and status.name == "MATERIALIZED"
        }

    def feed_partitions(self) -> dg.PartitionsDefinition[str]:
        """The partitions definition of the feed's assets."""
        found = self.defs.resolve_assets_def(stage_key("ingest")).partitions_def
        assert found is not None
        return found


def stage_key(stage: str) -> dg.AssetKey:
    """Give the asset key of a stage."""
    return dg.AssetKey([FEED, stage])


def metadata_of(
    result: dg.ExecuteInProcessResult | dg.JobExecutionResult, stage: str
) -> dict[str, Any]:
    """Read the metadata of a stage's materialization as plain values."""
    found = [
        event.step_materialization_data.materialization
        for event in result.all_events
        if event.is_step_materialization and event.asset_key == stage_key(stage)
    ]
    assert len(found) == 1, f"{stage} was materialized {len(found)} times"
    return {name: value.value for name, value in found[0].metadata.items()}


def failure_of(result: dg.ExecuteInProcessResult | dg.JobExecutionResult) -> tuple[str, str]:
    """Read which stage of a run failed, and the message of its error."""
    for event in result.all_events:
        if event.is_step_failure:
            error = event.step_failure_data.error
            assert error is not None
            return str(event.step_key).removeprefix(f"{FEED}__"), (error.cause or error).message
    msg = "no stage failed"
    raise AssertionError(msg)


def stages_run(result: dg.ExecuteInProcessResult | dg.JobExecutionResult) -> list[str]:
    """List the stages that a run materialized, in their order."""
    return [
        event.asset_key.path[-1]
        for event in result.all_events
        if event.is_step_materialization and event.asset_key is not None
    ]


def environment(folder: Path, home: Path, url: str | None = None) -> dict[str, str]:
    """Give the environment of a process that works on the shop.

    Args:
        folder: The folder given to `open_shop`.
        home: BATCH_PIPELINES_HOME.
        url: The database; None stands for the embedded server of that home.
    """
    own = {"BATCH_PIPELINES_FEEDS": str(folder / "feeds"), "BATCH_PIPELINES_HOME": str(home)}
    if url is not None:
        own["BATCH_PIPELINES_DATABASE_URL"] = url
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("BATCH_PIPELINES_")}
    return inherited | own


@contextmanager
def opened(folder: Path, url: str, pipelines: str) -> Iterator[Shop]:
    """Open Dagster and the database for the length of a block, with the environment saying so.

    Args:
        folder: The folder given to `open_shop`.
        url: The shop's database, with ledger and tables, as their owner logs in.
        pipelines: The same, as the pipelines log in.

    Yields:
        The shop.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(folder, folder / "home", pipelines).items():
            patch.setenv(name, value)
        for name in _SET_BY_PREPARED:
            # What `prepared` sets lasts as long as its process; here only as long as the block.
            patch.setenv(name, "")
        settings = load_settings()
        with prepared(settings), open_instance() as instance:
            yield Shop(folder, settings, Database(url), instance)


def migrate(folder: Path, url: str) -> None:
    """Make the shop's ledger and tables.

    Args:
        folder: The folder given to `open_shop`.
        url: An empty database.
    """
    feeds = folder / "feeds"
    upgrade(Database(url))
    let_writer_in(url)
    with Database(url).connect("test") as connection:
        open_schema(connection, DAGSTER_SCHEMA)
        create_tables(connection, load_feeds(feeds).values(), feeds)
