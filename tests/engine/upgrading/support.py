"""Opens stations: databases in which code of an earlier revision has been at work, with their folders.

`make_station.py` makes them: a tar of a dump, of landing, and of the home with staging and bags.
"""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batch_pipelines.engine.archiving.verify import ArchiveVerifier
from batch_pipelines.engine.postgres.database import Database
from batch_pipelines.engine.reports.batch_facts import read_batch
from batch_pipelines.engine.reports.batch_page import batch_page
from batch_pipelines.engine.reports.html import page_html
from batch_pipelines.engine.roles.settle import FIRST_REVISION, ensure_roles
from batch_pipelines.engine.settings import Settings
from tests.engine.verification.support_verify import verify
from tests.support_engine import Site, feed_of

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterator, Mapping

    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.ledger.batches import Batch

STATIONS = Path(__file__).parent / "stations"
REVISIONS = tuple(sorted(path.name.split(".")[0] for path in STATIONS.iterdir()))
"""Revisions of which there is a station."""
_MADE_AT = "/srv/batch-pipelines-{}/"
_TABLES = "parents", "children", "stock", "waiting", "legacy"
_CONTENT = "SELECT to_jsonb(t)::text FROM public.{} AS t ORDER BY 1"
_ORDERS = {"public.parents": "p*", "public.children": "c*"}
_HALF = {"rejected_rows": "50%"}


def feeds() -> dict[str, Feed]:
    """The feeds of the stations, as they are written today."""
    orders = feed_of(_ORDERS, thresholds=_HALF)
    stock = {"table": "public.stock", "files": "*", "write": "upsert"}
    return {
        "orders": orders,
        "stock": orders.model_validate({**orders.model_dump(), "feed": "stock", "tables": [stock]}),
        "waits": feed_of({"public.waiting": "*"}, feed="waits", publish="after_validation"),
        "old": feed_of(_ORDERS, feed="old", thresholds=_HALF),
    }


@dataclass
class Station:
    """A database of an earlier revision, and the folders that belong to it.

    Attributes:
        revision: Its revision.
        site: The place, of the feed `orders`.
    """

    revision: str
    site: Site

    def of(self, feed: str) -> Site:
        """The same place, of another feed."""
        site = self.site
        return Site(site.database, site.settings, feeds()[feed], site.connection)

    def content(self) -> dict[str, list[tuple[Any, ...]]]:
        """All rows of all tables, with their stamps."""
        return {table: self.site.sql(_CONTENT.format(table)) for table in _TABLES}

    def states(self) -> dict[str, str]:
        """The state of each batch, whatever the revision."""
        return dict(self.site.sql("SELECT batch_id::text, status FROM batch_audit.import_history"))

    def history(self) -> dict[tuple[str, str], list[str]]:
        """The states of the batches of each partition, oldest first."""
        found: dict[tuple[str, str], list[str]] = {}
        for batch in self.site.history():
            found.setdefault((batch.feed, batch.partition_key), []).append(batch.status)
        return found

    def proven(self) -> dict[tuple[str, str], str]:
        """What proving the batches in force again says, by partition."""
        return {
            (batch.feed, batch.partition_key): verify(self.of(batch.feed), batch).status
            for batch in self.site.history()
            if batch.published_at is not None and batch.status not in {"SUPERSEDED", "ROLLED_BACK"}
        }

    def bags(self, now: dt.datetime) -> set[str]:
        """What reading all bags again says."""
        verifier = ArchiveVerifier(self.site.settings, feeds(), lambda: now)
        found = [*verifier.of_many(self.site.connection, None, None)]
        return {each.status for each in found}

    def reported(self, batch: Batch, now: dt.datetime) -> str:
        """The report of a batch, as a page."""
        return page_html(
            batch_page(
                read_batch(self.site.connection, batch.batch_id, made_at=now, made_by="a test")
            )
        )


@contextmanager
def opened(url: str, revision: str, folder: Path) -> Iterator[Station]:
    """Open a station as its revision left it.

    Args:
        url: An empty database.
        revision: Its revision.
        folder: An empty folder.

    Yields:
        The station.
    """
    shutil.unpack_archive(STATIONS / f"{revision}.tar.xz", folder)
    settings = Settings(home=folder / "home", feeds=folder / "feeds")
    database = Database(url)
    with database.connect("test") as connection:
        if revision >= FIRST_REVISION:
            ensure_roles(connection)
        connection.execute(_moved((folder / "station.sql").read_text(), revision, folder))
        connection.execute("RESET ALL")
        yield Station(revision, Site(database, settings, feeds()["orders"], connection))


def _moved(dump: str, revision: str, folder: Path) -> bytes:
    """Let a dump be of another folder; what the audit trail says stays, or its hashes would be wrong."""
    parts = [
        part if part.startswith("INSERT INTO batch_audit.audit_event") else
        part.replace(_MADE_AT.format(revision), f"{folder}/")
        for part in dump.split("\n\n")
    ]  # fmt: skip
    return "\n\n".join(parts).encode()


def orders(number: int, name: str = "n") -> Mapping[str, str]:
    """A delivery, as the maker of stations has it."""
    ids = range(number * 10, number * 10 + 5)
    children = [f"{i},{i},{i}.50,2024-05-01T12:00:0{i % 10}Z\n" for i in ids]
    return {
        "p.csv": "id,name\n" + "".join(f"{i},{name}{i}\n" for i in ids),
        "c.csv": "id,parent,amount,at\n" + "".join(children),
    }
