"""A place where tests deliver files and run the five stages: a database, folders and one feed."""

from __future__ import annotations

import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import psycopg
import pyarrow as pa
from psycopg.conninfo import make_conninfo

from batch_pipelines.engine.archive import archive
from batch_pipelines.engine.bulk_write import bulk_write
from batch_pipelines.engine.checksum import checksum
from batch_pipelines.engine.feeds import Feed
from batch_pipelines.engine.ingest import ingest
from batch_pipelines.engine.ledger import batches
from batch_pipelines.engine.ledger.stages import STAGES
from batch_pipelines.engine.postgres.database import Database
from batch_pipelines.engine.postgres.lease import acquire
from batch_pipelines.engine.validate import require_valid, validate
from batch_pipelines.engine.work import Work
from tests.support_columnar import write_columnar

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.ledger.stages import Stage
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.settings import Settings

Content: TypeAlias = "str | bytes | pa.Table"
"""A file: text as it stands, bytes, or a table that is written as the file's suffix says."""
KEY = "first"


def new_id() -> str:
    """Make a run id as Dagster does."""
    return str(uuid.uuid4())


def feed_of(tables: Mapping[str, str], **more: object) -> Feed:
    """Make a feed.

    Args:
        tables: Pattern of the files for each table.
        more: What else its file would say.
    """
    return Feed.model_validate(
        {
            "feed": "orders",
            "source": {"path": "landing/{batch}/*"},
            "tables": [{"table": table, "files": files} for table, files in tables.items()],
            "thresholds": {"rejected_rows": 0},
            **more,
        }
    )


@dataclass
class Site:
    """A database, folders and a feed.

    Attributes:
        database: The target and ledger, as the pipelines log in.
        settings: Folders and times.
        feed: The feed.
        connection: For the test's own questions, as the owner, in autocommit mode.
        sessions: Those that runs have left for the next one; None if each run has its own.
    """

    database: Database
    settings: Settings
    feed: Feed
    connection: Connection
    sessions: list[Connection] | None = field(default=None, repr=False)

    @property
    def owner(self) -> Database:
        """Target and ledger, as their owner logs in."""
        return Database(make_conninfo(self.database.url, user=self.connection.info.user))

    def landing(self, key: str = KEY) -> Path:
        """Folder of a partition's delivery."""
        return self.settings.root / "landing" / key

    def deliver(self, files: Mapping[str, Content], key: str = KEY) -> None:
        """Put a delivery into landing, in place of one that lies there."""
        folder = self.landing(key)
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.iterdir():
            old.unlink()
        for name, content in files.items():
            if isinstance(content, pa.Table):
                write_columnar(content, folder / name)
            else:
                (folder / name).write_bytes(
                    content.encode() if isinstance(content, str) else content
                )

    @contextmanager
    def work(
        self, key: str = KEY, run_id: str | None = None, **more: Any
    ) -> Iterator[tuple[Connection, Work]]:
        """Begin a run: take the lease and open what a stage is handed."""
        run_id = run_id or new_id()
        seconds = self.settings.lease_seconds
        with (
            acquire(self.database, self.feed.feed, key, run_id, seconds=seconds) as lease,
            self._session() as connection,
        ):
            yield (
                connection,
                Work(
                    database=self.database, settings=self.settings, feed=self.feed, key=key,
                    lease=lease, requested_by="a test", correlation_id=run_id, **more,
                ),
            )  # fmt: skip

    @contextmanager
    def _session(self) -> Iterator[Connection]:
        session = self._left() or self.database.connect("run")
        try:
            yield session
        except BaseException:
            session.close()
            raise
        if self.sessions is None:
            session.close()
        else:
            self.sessions.append(session)

    def _left(self) -> Connection | None:
        while self.sessions:
            session = self.sessions.pop()
            if _answers(session):
                return session
            session.close()
        return None

    def run(
        self,
        key: str = KEY,
        *,
        run_id: str | None = None,
        stages: Sequence[Stage] = STAGES,
        force: bool = False,
    ) -> Batch:
        """Run stages in order, as one run, as Dagster would; return the batch it ended with."""
        with self.work(key, run_id) as (connection, work):
            for stage in stages:
                do_stage(stage, connection, work, force=force)
            batch = batches.of_run(connection, work.run_id)
        assert batch is not None
        return batch

    def load(self, files: Mapping[str, Content], key: str = KEY, *, force: bool = False) -> Batch:
        """Deliver and run all stages."""
        self.deliver(files, key)
        return self.run(key, force=force)

    def history(self) -> list[Batch]:
        """All batches, oldest first."""
        return batches.history(self.connection)[::-1]

    def newest(self, key: str = KEY) -> Batch:
        """The newest batch of a partition that was more than a duplicate."""
        batch = batches.newest(self.connection, self.feed.feed, key)
        assert batch is not None
        return batch

    def sql(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Run SQL of the test's own and return the rows, if it has any."""
        cursor = self.connection.execute(statement.encode(), parameters or None)
        return cursor.fetchall() if cursor.description else []

    def count(self, statement: str, *parameters: object) -> int:
        """Run SQL that gives one number."""
        ((number,),) = self.sql(statement, *parameters)
        return int(number)

    def rows(self, table: str | None = None) -> list[tuple[Any, ...]]:
        """Rows of a table (the feed's first) without their stamp, sorted as text."""
        name = self._quoted(table)
        kept = "to_jsonb(t) - 'import_batch_id'"
        return self.sql(f"SELECT ({kept})::text FROM {name} t ORDER BY 1")

    def stamps(self, table: str | None = None) -> dict[str | None, int]:
        """How many rows of a table (the feed's first) each batch has written."""
        name = self._quoted(table)
        found = self.sql(f"SELECT import_batch_id::text, count(*) FROM {name} GROUP BY 1")
        return dict(found)

    def _quoted(self, table: str | None) -> str:
        name = table or self.feed.tables[0].table
        return ".".join(f'"{part}"' for part in name.split("."))


@contextmanager
def sharing_sessions(site: Site) -> Iterator[Site]:
    """Let a site's runs go on in each other's sessions within a block.

    What a new session looks up in the catalog and compiles is a quarter of a small load. That it works
    in a session of its own, too, is seen wherever a process imports.
    """
    site.sessions = []
    try:
        yield site
    finally:
        for session in site.sessions:
            session.close()


def _answers(session: Connection) -> bool:
    """Say whether nobody has ended it in the meantime."""
    try:
        session.execute("SELECT")
    except psycopg.OperationalError:
        return False
    return True


def do_stage(stage: Stage, connection: Connection, work: Work, *, force: bool = False) -> None:
    """Run one stage as its Dagster asset does."""
    match stage:
        case "ingest":
            ingest(connection, work, force=force)
        case "checksum":
            checksum(connection, work)
        case "bulk_write":
            bulk_write(connection, work)
        case "validate":
            require_valid(validate(connection, work))
        case "archive":
            archive(connection, work)
