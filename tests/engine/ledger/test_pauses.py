"""A feed is paused once, with a reason that everybody is told, until somebody resumes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from batch_pipelines.engine.errors import FeedPausedError
from batch_pipelines.engine.ledger import pauses

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batch_pipelines.engine.postgres.database import Connection, Database


@pytest.fixture
def ledger(database18: Database) -> Iterator[Connection]:
    with database18.connect("test") as connection:
        yield connection


def test_a_paused_feed_is_refused_with_the_reason(ledger: Connection) -> None:
    pauses.require_running(ledger, "orders")
    assert pauses.pause(ledger, "orders", by="ann", reason="the sender repeats itself")
    said = (
        r"Feed orders is paused since .* UTC, by ann: the sender repeats itself\. .* "
        "batch-pipelines feeds resume orders"
    )
    with pytest.raises(FeedPausedError, match=said):
        pauses.require_running(ledger, "orders")
    pauses.require_running(ledger, "others")
    assert pauses.paused(ledger).keys() == {"orders"}


def test_the_first_reason_stands(ledger: Connection) -> None:
    assert pauses.pause(ledger, "orders", by="ann", reason="first")
    assert not pauses.pause(ledger, "orders", by="bob", reason="second")
    found = pauses.pause_of(ledger, "orders")
    assert found is not None
    assert (found.paused_by, found.reason) == ("ann", "first")


def test_a_resumed_feed_goes_on_and_can_be_paused_again(ledger: Connection) -> None:
    assert pauses.resume(ledger, "orders", by="ann") is None
    assert pauses.resumed_at(ledger, "orders") is None
    assert pauses.times_paused(ledger, "orders") == 0
    for number in (1, 2):
        assert pauses.pause(ledger, "orders", by="ann", reason="why")
        over = pauses.resume(ledger, "orders", by="bob")
        assert over is not None
        assert over.reason == "why"
        pauses.require_running(ledger, "orders")
        assert pauses.times_paused(ledger, "orders") == number
    assert pauses.resumed_at(ledger, "orders") is not None
    assert pauses.paused(ledger) == {}
