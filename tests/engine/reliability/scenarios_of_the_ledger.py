"""What is attacked of the ledger itself: rebuilding it, its roles, and telling a catalog of lineage."""

from __future__ import annotations

import datetime as dt
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pydantic

from batch_pipelines.engine.audit.rebuild import rebuild
from batch_pipelines.engine.lineage.send import send_due
from batch_pipelines.engine.roles.settle import settle
from tests.engine.reliability.scenario import Scenario, Told, delivery, feed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support_engine import Site

_REQUESTERS = "SELECT requested_by FROM batch_audit.import_history ORDER BY started_at"
_SPOILED = """
ALTER TABLE batch_audit.import_reject OWNER TO CURRENT_USER;
ALTER FUNCTION batch_audit.detail_root(uuid) OWNER TO CURRENT_USER;
ALTER SCHEMA batch_staging OWNER TO CURRENT_USER;
GRANT SELECT ON batch_audit.import_reject TO PUBLIC;
REVOKE INSERT ON batch_audit.import_history FROM batch_writer
"""
_RIGHTS = """
SELECT c.relname, pg_get_userbyid(c.relowner), c.relacl::text FROM pg_class AS c
WHERE c.relname IN ('import_reject', 'import_history')
UNION ALL SELECT nspname, pg_get_userbyid(nspowner), nspacl::text FROM pg_namespace
WHERE nspname = 'batch_staging'
UNION ALL SELECT proname, pg_get_userbyid(proowner), proacl::text FROM pg_proc
WHERE proname = 'detail_root' ORDER BY 1
"""
_SENT = "SELECT batch_id::text, event_type FROM batch_audit.lineage_sent"


def _rebuild(site: Site, told: Told, _: str) -> None:
    told.stage = "rebuild"
    rebuild(site.connection, write=True, by="a tester")


def _settle(site: Site, told: Told, _: str) -> None:
    told.stage = "roles"
    settle(site.connection)


def _send(site: Site, told: Told, _: str) -> None:
    told.stage = "lineage"
    with _catalog(_told_to(site)) as url:
        settings = site.settings.model_copy(update={"openlineage_url": pydantic.SecretStr(url)})
        feeds = {site.feed.feed: site.feed}
        found = send_due(
            site.connection, settings, feeds, lambda: dt.datetime.now(dt.UTC), budget=300
        )
    assert found.problem is None


def _told_to(site: Site) -> Path:
    return site.settings.root / "catalog.jsonl"


@contextmanager
def _catalog(heard: Path) -> Iterator[str]:
    """Serve a catalog, which writes down what it is told before it answers."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # its name is given
            event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with heard.open("a", encoding="utf-8") as file:
                file.write(json.dumps([event["run"]["runId"], event["eventType"]]) + "\n")
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its name is given
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def _heard(site: Site) -> frozenset[str]:
    """Name what the catalog was told; and what we believe it was told, and it was not."""
    path = _told_to(site)
    heard = (
        {tuple(json.loads(line)) for line in path.read_text().splitlines()}
        if path.exists()
        else set()
    )
    believed = set(site.sql(_SENT)) - heard
    return frozenset(
        {" ".join(each) for each in heard} | {f"believed: {each}" for each in believed}
    )


def _one_of_which_the_ledger_says_something_else(site: Site) -> None:
    site.load(delivery(0))
    site.sql("UPDATE batch_audit.import_history SET requested_by = 'somebody else'")


def _one_and_rights_that_nobody_should_have(site: Site) -> None:
    site.load(delivery(0))
    site.sql(_SPOILED)


def _one(site: Site) -> None:
    site.load(delivery(0))


OF_THE_LEDGER = (
    Scenario(
        "rebuilding the history",
        feed(),
        _one_of_which_the_ledger_says_something_else,
        _rebuild,
        is_visible=False,
        also=_REQUESTERS,
    ),
    Scenario(
        "roles",
        feed(),
        _one_and_rights_that_nobody_should_have,
        _settle,
        is_visible=False,
        also=_RIGHTS,
    ),
    Scenario("lineage", feed(), _one, _send, is_visible=False, kept=_heard),
)
