"""A batch's source is imported again out of its bag, as a new batch that takes the other's place."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import crc32c
import pytest
from pydantic import SecretStr

from batch_pipelines.engine.archiving.keys import new_key
from batch_pipelines.engine.errors import ArchiveError, DeliveryError
from batch_pipelines.engine.ingest import ingest
from batch_pipelines.engine.ledger import archives, batches, files
from batch_pipelines.engine.ledger.stages import STAGES
from batch_pipelines.engine.reprocessing import require_source
from batch_pipelines.engine.rollback import Request, roll_back
from tests.engine.restoring.support import bring_back, put_away
from tests.support_engine import KEY, do_stage

if TYPE_CHECKING:
    from batch_pipelines.engine.ledger.batches import Batch
    from tests.engine.conftest import MakeSite
    from tests.support_engine import Site

DDL = "CREATE TABLE t (id int PRIMARY KEY, note text, import_batch_id uuid)"
FIRST, SECOND = "id,note\n1,first\n2,first\n", "id,note\n2,second\n3,second\n"


def reprocess(site: Site, origin: Batch, key: str = KEY) -> Batch:
    """Import a batch's source again, as one run."""
    with site.work(key) as (connection, work):
        found = require_source(connection, site.settings, origin)
        ingest(connection, work, reprocess=found.batch_id)
        for stage in STAGES[1:]:
            do_stage(stage, connection, work)
        batch = batches.of_run(connection, work.run_id)
    assert batch is not None
    return batch


def empty_landing(site: Site) -> None:
    for path in site.landing().iterdir():
        path.unlink()


def test_the_source_of_a_superseded_batch_takes_its_place_again(site18: MakeSite) -> None:
    site = site18(DDL)
    first, second = site.load({"a.csv": FIRST}), site.load({"a.csv": SECOND})
    empty_landing(site)
    again = reprocess(site, first)
    assert again.batch_id not in {first.batch_id, second.batch_id}
    assert (again.status, again.identity) == ("SUCCESS", first.identity)
    assert site.stamps() == {again.batch_id: 2}
    assert [row for (row,) in site.rows()] == [
        '{"id": 1, "note": "first"}', '{"id": 2, "note": "first"}',
    ]  # fmt: skip
    states = {batch.batch_id: batch.status for batch in site.history()}
    assert states[second.batch_id] == "SUPERSEDED"
    # Landing was not looked at, so what lies there later is as new as before.
    assert again.fingerprint is None
    assert archives.bag(site.connection, again.batch_id) is not None
    told = site.sql(
        "SELECT resource_id, details ->> 'source_of' FROM batch_audit.audit_event"
        " WHERE action = 'batch.reprocess.started'"
    )
    assert told == [(again.batch_id, first.batch_id)]


@pytest.mark.parametrize("state", ["SUCCESS", "ROLLED_BACK", "ARCHIVED", "DUPLICATE"])
def test_a_batch_in_any_state_is_imported_again(site18: MakeSite, state: str) -> None:
    site = site18(DDL)
    batch = site.load({"a.csv": FIRST})
    if state == "ROLLED_BACK":
        feeds = {site.feed.feed: site.feed}
        wanted = Request((batch.batch_id,), "wrong", "a test")
        roll_back(site.database, site.settings, feeds, wanted)
    elif state == "ARCHIVED":
        put_away(site, batch)
    elif state == "DUPLICATE":
        batch = site.run()
    assert batches.by_id(site.connection, batch.batch_id).status == state
    again = reprocess(site, batches.by_id(site.connection, batch.batch_id))
    assert again.status == "SUCCESS"
    assert site.stamps() == {again.batch_id: 2}
    if state == "ARCHIVED":
        with pytest.raises(Exception, match="has taken its place"):
            bring_back(site, batch)


def test_what_the_sender_said_of_the_files_is_compared_again(site18: MakeSite) -> None:
    site = site18(DDL, archive={"encrypt": True, "strategy": "copy"})
    site.settings = site.settings.model_copy(update={"archive_key": SecretStr(new_key())})
    crc = crc32c.crc32c(FIRST.encode())
    batch = site.load({"a.csv": FIRST, "a.csv.crc32c": f"{crc:08x}\n"})
    again = reprocess(site, batch)
    (file,) = files.of_batch(site.connection, again.batch_id)
    assert (file.expected_crc32c, file.expected_source, file.crc32c) == (crc, "sidecar", crc)
    bags = [archives.bag(site.connection, each.batch_id) for each in (batch, again)]
    names = [
        sorted(path.name for path in (Path(bag.place) / "data/source").iterdir())
        for bag in bags
        if bag is not None
    ]
    assert names == [["a.csv.age", "a.csv.crc32c.age"]] * 2


def test_a_bag_without_source_is_refused_before_anything_begins(site18: MakeSite) -> None:
    site = site18(DDL, archive={"strategy": "digests_only"})
    batch = site.load({"a.csv": FIRST})
    with pytest.raises(ArchiveError, match="digests_only"):
        reprocess(site, batch)
    assert len(site.history()) == 1


def test_a_batch_without_a_bag_is_refused(site18: MakeSite) -> None:
    site = site18(DDL)
    site.deliver({"a.csv": FIRST})
    batch = site.run(stages=STAGES[:4])
    with pytest.raises(ArchiveError, match="has no bag"):
        reprocess(site, batch)


def test_a_batch_of_another_partition_is_refused(site18: MakeSite) -> None:
    site = site18(DDL)
    batch = site.load({"a.csv": FIRST})
    with pytest.raises(DeliveryError, match="this run is of orders/other"):
        reprocess(site, batch, "other")


def test_a_damaged_bag_is_not_imported(site18: MakeSite) -> None:
    site = site18(DDL, archive={"strategy": "copy"})
    batch = site.load({"a.csv": FIRST})
    bag = archives.bag(site.connection, batch.batch_id)
    assert bag is not None
    path = Path(bag.place) / "data/source/a.csv"
    path.chmod(0o644)
    path.write_text(SECOND)
    with pytest.raises(ArchiveError, match="damaged"):
        reprocess(site, batch)
    assert site.stamps() == {batch.batch_id: 2}
