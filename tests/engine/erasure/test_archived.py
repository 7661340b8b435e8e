"""A person in the archive: in rows and in lines of the ledger that have left their tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batch_pipelines.engine.ledger import batches
from tests.engine.erasure.support import (
    OWN,
    eraser,
    fill,
    left_of,
    open_laboratory,
    patients,
    request,
    require_proven,
)
from tests.engine.restoring.support import bring_back
from tests.engine.verification.support_verify import verify
from tests.support_retention import POLICY, retain, with_rules

if TYPE_CHECKING:
    from tests.engine.conftest import MakeSite


def test_a_person_leaves_bags_of_rows_and_of_lines_and_a_restore_is_proven(
    site18: MakeSite,
) -> None:
    there = open_laboratory(site18)
    fill(there)
    there.feed = with_rules(there.feed, rows=POLICY, quarantine=POLICY, before_images=POLICY)
    archived = retain(there)
    assert {chunk.data_class for chunk in archived.of_state("DELETED")} == {
        "rows", "quarantine", "before_images",
    }  # fmt: skip
    assert patients(there) == 0

    done = eraser(there).erase(request())
    kinds = {place.kind for place in done.places}
    assert kinds == {"bag", "rows_bag", "records_bag"}
    assert left_of(there, *OWN) == []
    require_proven(there)

    for batch in there.history():
        if batch.status == "ARCHIVED":
            bring_back(there, batch)
            (found,) = verify(there, batches.by_id(there.connection, batch.batch_id)).tables
            # Images of rows that were overwritten are in the archive still.
            assert found.status == ("FAILED" if batch.partition_key == "one" else "SUCCESS")
    assert left_of(there, *OWN) == []
