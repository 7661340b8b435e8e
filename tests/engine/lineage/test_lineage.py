"""A catalog is told of each batch once, after the fact, and no batch suffers from one that is away."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import crc32c
import pydantic
import pytest

from batch_pipelines.engine.errors import SettingsError, ThresholdError
from batch_pipelines.engine.lineage.send import Sent, send_due
from batch_pipelines.engine.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.engine.conftest import MakeSite
    from tests.support_engine import Site

pytestmark = pytest.mark.versions

DDL = "CREATE TABLE t (a integer PRIMARY KEY, note text, import_batch_id uuid)"
GOOD = "a,note\n1,Wednesday\n2,Addams\n"


@dataclass
class Catalog:
    """A real server, and what it was sent."""

    url: str = ""
    status: int = 200
    got: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str | None] = field(default_factory=set)


@contextmanager
def running() -> Iterator[Catalog]:
    catalog = Catalog()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # its name is given
            body = self.rfile.read(int(self.headers["Content-Length"]))
            catalog.keys.add(self.headers["Authorization"])
            if self.path == "/api/v1/lineage" and catalog.status == 200:
                catalog.got.append(json.loads(body))
            self.send_response(catalog.status)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its name is given
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        catalog.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield catalog
        server.shutdown()
        thread.join()


def send(here: Site, url: str, *, later: dt.timedelta = dt.timedelta(0)) -> Sent:
    settings = here.settings.model_copy(
        update={
            "openlineage_url": pydantic.SecretStr(url),
            "openlineage_api_key": pydantic.SecretStr("geheim"),
        }
    )
    feeds = {here.feed.feed: here.feed}
    clock = lambda: dt.datetime.now(dt.UTC) + later  # noqa: E731
    return send_due(here.connection, settings, feeds, clock, budget=60)


def test_a_batch_is_told_with_its_files_tables_and_checks(site: MakeSite) -> None:
    here = site(DDL, description="Things", owners=["team:shop"])
    with running() as catalog:
        batch = here.load({"a.csv": GOOD}, "one")
        assert send(here, catalog.url) == Sent(2)
        assert send(here, catalog.url) == Sent(0)
        start, end = catalog.got
    assert catalog.keys == {"Bearer geheim"}
    assert [start["eventType"], end["eventType"]] == ["START", "COMPLETE"]
    for event in (start, end):
        assert event["run"]["runId"] == batch.batch_id
        assert (event["job"]["namespace"], event["job"]["name"]) == ("batch-pipelines", "orders")
        assert event["job"]["facets"]["documentation"]["description"] == "Things"
    assert (start["inputs"], start["outputs"]) == ([], [])
    (file,) = end["inputs"]
    assert (file["namespace"], file["name"]) == ("file", "landing/one/a.csv")
    sums = file["facets"]["batchPipelines_checksums"]
    assert sums["sha256"] == hashlib.sha256(GOOD.encode()).hexdigest()
    assert sums["crc32c"] == f"{crc32c.crc32c(GOOD.encode()):08x}"
    assert file["inputFacets"]["inputStatistics"]["rowCount"] == 2
    (table,) = end["outputs"]
    assert table["namespace"].startswith("postgres://localhost:")
    assert table["name"].endswith(".public.t")
    columns = {each["name"]: each["type"] for each in table["facets"]["schema"]["fields"]}
    assert columns == {"a": "integer", "note": "text", "import_batch_id": "uuid"}
    assert table["outputFacets"]["outputStatistics"]["rowCount"] == 2
    checks = table["facets"]["dataQualityAssertions"]["assertions"]
    assert {"record_count"} <= {check["assertion"] for check in checks}
    assert all(check["success"] for check in checks)
    # Values of rows stay here.
    assert not any(word in json.dumps(catalog.got) for word in ("Wednesday", "Addams"))


def test_how_it_ended_is_told_and_each_end_once(site18: MakeSite) -> None:
    here = site18(DDL)
    with running() as catalog:
        here.deliver({"a.csv": "a,note\nx,y\n"}, "bad")
        with pytest.raises(ThresholdError):
            here.run("bad")
        assert send(here, catalog.url) == Sent(2)
        assert catalog.got[-1]["eventType"] == "FAIL"
        told = catalog.got[-1]["run"]["facets"]["errorMessage"]["message"]
        assert "records cannot be loaded" in told
        here.load({"a.csv": GOOD}, "good")
        here.load({"a.csv": GOOD}, "good")
        send(here, catalog.url)
        here.load({"a.csv": "a,note\n7,z\n"}, "good")  # what it supersedes has ended already
        send(here, catalog.url)
        kinds = [event["eventType"] for event in catalog.got[2:]]
    assert kinds == ["START", "COMPLETE", "START", "ABORT", "START", "COMPLETE"]


def test_a_catalog_that_is_away_is_told_later_and_not_of_old_stories(site18: MakeSite) -> None:
    here = site18(DDL)
    with running() as catalog:
        here.load({"a.csv": GOOD})
        catalog.status = 503
        assert send(here, catalog.url) == Sent(0, "the catalog answered 503")
        gone = send(here, "http://127.0.0.1:9")
        assert gone.sent == 0
        assert gone.problem is not None
        assert gone.problem.startswith("the catalog cannot be reached")
        assert "127" not in gone.problem
        assert send(here, catalog.url, later=dt.timedelta(days=2)) == Sent(0)
        catalog.status = 200
        assert send(here, catalog.url) == Sent(2)
        assert [event["eventType"] for event in catalog.got] == ["START", "COMPLETE"]
        here.load({"a.csv": "a,note\n5,x\n"}, "next")
        with pytest.raises(SettingsError, match="BATCH_PIPELINES_OPENLINEAGE_URL is no URL"):
            send(here, "nowhere")


def test_of_many_files_the_folder_is_told(site18: MakeSite) -> None:
    here = site18(DDL)
    with running() as catalog:
        here.load({f"{n:03}.csv": f"a,note\n{n},x\n" for n in range(101)})
        send(here, catalog.url)
    (folder,) = catalog.got[-1]["inputs"]
    assert folder["name"] == "landing/first"
    assert folder["inputFacets"]["inputStatistics"]["rowCount"] == 101
    assert folder["inputFacets"]["inputStatistics"]["fileCount"] == 101


def test_the_clients_own_variables_count(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().openlineage_url is None
    monkeypatch.setenv("OPENLINEAGE_URL", "http://theirs")
    found = load_settings().openlineage_url
    assert found is not None
    assert found.get_secret_value() == "http://theirs"
    monkeypatch.setenv("BATCH_PIPELINES_OPENLINEAGE_URL", "http://ours")
    found = load_settings().openlineage_url
    assert found is not None
    assert found.get_secret_value() == "http://ours"
    assert load_settings().openlineage_namespace == "batch-pipelines"
