"""Rows put away in a bucket: it ends right while the store fails now and then, or nothing counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from batch_pipelines.engine.archiving.choosing import open_archive
from batch_pipelines.engine.archiving.rows.export import export_rows
from batch_pipelines.engine.archiving.rows.reading import open_rows
from batch_pipelines.engine.archiving.verify import ArchiveVerifier
from batch_pipelines.engine.errors import ArchiveError
from batch_pipelines.engine.failpoints import armed
from batch_pipelines.engine.ledger import archives
from batch_pipelines.engine.work import utc_now
from tests.engine.restoring.support import bring_back, put_away
from tests.support_s3 import Answer, Request, failing_every, no_pauses, refusal

if TYPE_CHECKING:
    from tests.engine.conftest import MakeSite
    from tests.support_engine import Site
    from tests.support_s3 import Store

DDL = "CREATE TABLE t (id int PRIMARY KEY, note text, import_batch_id uuid)"
ROWS = "id,note\n" + "".join(f"{n},note {n}\n" for n in range(100))


@pytest.fixture
def site(site18: MakeSite, store: Store, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A site whose bags go into a bucket, without pauses between tries."""
    no_pauses(monkeypatch)
    site = site18(DDL)
    address = f"s3://{store.bucket}/bags"
    site.settings = site.settings.model_copy(update={"archive": address})
    return site


def test_it_ends_right_where_every_third_request_fails(site: Site, store: Store) -> None:
    batch = site.load({"a.csv": ROWS})
    before = site.rows()
    store.meddle = failing_every(3)
    archived = put_away(site, batch)
    assert site.rows() == []
    with open_rows(site.connection, site.settings, batch.batch_id) as rows:
        rows.prove()
    found = [*ArchiveVerifier(site.settings, {}, utc_now).of_batch(site.connection, archived)]
    assert [each.status for each in found] == ["VALID", "VALID"]
    bring_back(site, archived)
    assert site.rows() == before


def test_a_store_that_takes_nothing_more_is_told_and_nothing_is_recorded(
    site: Site, store: Store
) -> None:
    batch = site.load({"a.csv": ROWS})

    def refuse(request: Request, answer: Answer) -> Answer:
        return refusal(503, "SlowDown") if request.method == "PUT" else answer

    store.meddle = refuse
    with (
        site.work() as (connection, work),
        pytest.raises(ArchiveError, match=r"s3://.*\.rows\."),
    ):
        export_rows(connection, site.settings, site.feed, batch, work.lease)
    assert archives.rows(site.connection, batch.batch_id) is None
    assert site.stamps() == {batch.batch_id: 100}


def test_a_whole_bag_the_ledger_was_not_told_of_is_read_back_and_recorded(
    site: Site, store: Store
) -> None:
    batch = site.load({"a.csv": ROWS})

    def end(_: object) -> None:
        raise KeyboardInterrupt

    with (
        site.work() as (connection, work),
        armed("rows.sealed", end),
        pytest.raises(KeyboardInterrupt),
    ):
        export_rows(connection, site.settings, site.feed, batch, work.lease)
    put_away(site, batch)
    record = archives.rows(site.connection, batch.batch_id)
    assert record is not None
    archive = open_archive(site.settings, str(site.settings.archive))
    whole = [bag for bag in archive.bags() if ".rows" in bag]
    assert [archive.place(bag) for bag in whole] == [record.place]
    assert store.requests
