"""A person is erased from tables, quarantine, images and bags, and what is left is proven as before."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from batch_pipelines.engine.archive import archive
from batch_pipelines.engine.bulk_write import bulk_write
from batch_pipelines.engine.ledger import batches, erasures, proofs, rejects
from batch_pipelines.engine.validate import require_valid, validate
from tests.engine.erasure.support import (
    OWN,
    PATIENT,
    eraser,
    fill,
    left_of,
    open_laboratory,
    patients,
    request,
    require_proven,
)
from tests.engine.test_reprocessing import reprocess
from tests.support_rollback import take_back

if TYPE_CHECKING:
    from tests.engine.conftest import MakeSite
    from tests.support_engine import Site


def test_a_person_leaves_every_place_and_does_not_come_back(site: MakeSite) -> None:
    there = open_laboratory(site)
    fill(there)
    before = left_of(there, *OWN)
    assert patients(there) == 2
    assert before

    plan = eraser(there).plan(request())
    assert left_of(there, *OWN) == before, "a plan changes nothing"
    assert plan.obstacles == ()
    assert Counter(place.kind for place in plan.places for _ in range(place.found)) == {
        "rows": 2, "before_images": 1, "superseded_rows": 1, "quarantine": 2, "bag": 6,
    }  # fmt: skip
    assert PATIENT not in repr(plan.places)

    done = eraser(there).erase(request())
    assert done.erasure is not None
    assert done.erasure.state == "DONE"
    assert done.erasure.key_hash is done.erasure.key_salt is None
    assert left_of(there, *OWN) == []
    require_proven(there)
    one, two, three, again = there.history()
    balance = proofs.tables(there.connection, one.batch_id)[0]
    assert (balance.inserted, balance.erased, balance.rejected, balance.erased_rejects) == (
        36, 1, 4, 2,
    )  # fmt: skip
    assert erasures.of_batch(there.connection, one.batch_id) == {"bag": 3, "quarantine": 2}
    assert eraser(there).erase(request()).erasure is None, "nothing is left to be erased"

    take_back(there, two.batch_id)
    take_back(there, again.batch_id)
    assert batches.by_id(there.connection, three.batch_id).status == "SUCCESS"
    assert left_of(there, *OWN) == []
    require_proven(there)

    replay_of_what_is_mended(there)
    anew = reprocess(there, one, "one")
    assert anew.source_records == 37
    assert left_of(there, *OWN) == []
    require_proven(there)


def replay_of_what_is_mended(there: Site) -> None:
    one = there.history()[0]
    there.sql("ALTER TABLE results DROP CONSTRAINT results_value_check")
    with there.work("one") as (connection, work):
        bulk_write(connection, work, replay=True)
        require_valid(validate(connection, work))
        archive(connection, work)
    assert there.sql("SELECT patient, value FROM results WHERE accession = 'A-9005'")
    (left,) = [r for r in rejects.of_batch(there.connection, one.batch_id) if r.replayed_at is None]
    assert left.column_name == "value"
    assert patients(there) == 0
    require_proven(there)
