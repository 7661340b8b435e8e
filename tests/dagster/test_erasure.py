"""The job `erasure` ends what was begun on the command line; it knows nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from batch_pipelines.engine.erasure.course import Eraser, Request
from batch_pipelines.engine.errors import ArchiveError
from batch_pipelines.engine.failpoints import armed
from tests.support_engine import new_id
from tests.support_shop import DAY, FEED, orders

if TYPE_CHECKING:
    from tests.support_shop import Shop


def _full(_: object) -> None:
    message = "the disk is full"
    raise ArchiveError(message)


def test_what_was_begun_is_ended_without_a_word_of_whom(shop: Shop) -> None:
    shop.deliver(DAY, orders(20) + orders(5, first=100, customer=2).partition("\n")[2])
    assert shop.run(DAY).success
    request = Request(FEED, "public.orders", {"customer": "2"}, "request 7", "a tester")
    eraser = Eraser(shop.database, shop.settings, {FEED: shop.feed}, new_id())
    with armed("erase.written", _full), pytest.raises(ArchiveError, match="full"):
        eraser.erase(request)

    job = shop.defs.resolve_job_def("erasure")
    result = job.execute_in_process(instance=shop.instance)
    (event,) = [e for e in result.events_for_node("resume_erasures") if e.is_successful_output]
    assert event.step_output_data.metadata["ended"].value == 1
    assert shop.query("SELECT state FROM batch_audit.erasure") == [("DONE",)]
    assert eraser.plan(request).is_empty
