"""Retention and restores with bags in a bucket whose store fails: they end right, or delete nothing."""

from __future__ import annotations

import datetime as dt
import itertools
from typing import TYPE_CHECKING

import pytest

from batch_pipelines.engine.archiving.verify import ArchiveVerifier
from batch_pipelines.engine.errors import ArchiveError
from batch_pipelines.engine.ledger import batches
from tests.engine.restoring.support import bring_back
from tests.support_engine import feed_of
from tests.support_retention import POLICY, retain, with_rules
from tests.support_s3 import failing_every, no_pauses, refusal
from tests.support_soak import short_or_long

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.engine.conftest import MakeSite
    from tests.support_engine import Site
    from tests.support_s3 import Answer, Request, Store

DDL = "CREATE TABLE t (id int PRIMARY KEY, note text, import_batch_id uuid)"
_CLASSES = ("rows", "quarantine")


def rows(number: int) -> str:
    """Write rows of its own, and one that cannot be loaded."""
    own = range(100 * number, 100 * number + 100)
    return "id,note\n" + "".join(f"{n},note {n}\n" for n in own) + "x,none\n"


@pytest.fixture
def site(site18: MakeSite, store: Store, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A site whose bags go into a bucket."""
    no_pauses(monkeypatch)
    site = site18(DDL)
    feed = feed_of({"public.t": "*"}, thresholds={})
    site.feed = with_rules(feed, **dict.fromkeys(_CLASSES, POLICY))
    address = f"s3://{store.bucket}/bags"
    site.settings = site.settings.model_copy(update={"archive": address})
    return site


def away_from(number: int) -> Callable[[Request, Answer], Answer]:
    """Make a meddler that has the store be away from its so-manieth request on; it has done that one."""
    passed = 0

    def meddle(_: Request, answer: Answer) -> Answer:
        nonlocal passed
        passed += 1
        return answer if passed < number else refusal(503, "SlowDown")

    return meddle


def in_place(_: Request, answer: Answer) -> Answer:
    """Let the store be as it is."""
    return answer


def rejects(site: Site) -> int:
    return site.count("SELECT count(*) FROM batch_audit.import_reject")


def test_a_store_that_fails_every_third_request(site: Site, store: Store) -> None:
    site.load({"a.csv": rows(0)})
    before = site.rows()
    store.meddle = failing_every(3)
    assert {chunk.data_class: chunk.state for chunk in retain(site).chunks} == dict.fromkeys(
        _CLASSES, "DELETED"
    )
    (batch,) = site.history()
    assert (batch.status, site.rows(), rejects(site)) == ("ARCHIVED", [], 0)
    bring_back(site, batch)
    assert site.rows() == before


@short_or_long("apart", 30, 1)
def test_a_store_that_goes_away_in_the_middle(site: Site, store: Store, apart: int) -> None:
    """Given a store that is away from any request on, what is in no proven bag is in its table."""
    for number in itertools.count(apart, apart):
        batch = site.load({"a.csv": rows(number)}, f"k{number}")
        before = site.rows()
        store.meddle = away_from(number)
        done = {each.data_class: each for each in retain(site).chunks}
        gone = {name for name, each in done.items() if each.state == "DELETED"}
        assert site.rows() == ([] if "rows" in gone else before)
        assert rejects(site) == ("quarantine" not in gone)
        for each in done.values():
            assert each.state == "DELETED" or "the store" in str(each.reason), each
        if gone == {*_CLASSES}:
            break
        store.meddle = away_from(1)
        if "rows" in gone:
            with pytest.raises(ArchiveError, match="the store"):
                bring_back(site, batches.by_id(site.connection, batch.batch_id))
            assert site.rows() == []
        store.meddle = in_place
        retain(site)
        assert (site.rows(), rejects(site)) == ([], 0)
        bring_back(site, batches.by_id(site.connection, batch.batch_id))
        assert site.rows() == before
        retain(site)
    store.meddle = in_place
    verifier = ArchiveVerifier(site.settings, {}, lambda: dt.datetime.now(dt.UTC))
    assert {each.status for each in verifier.of_many(site.connection, None, None)} == {"VALID"}
    assert number > apart
