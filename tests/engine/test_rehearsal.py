"""A rehearsal says what an import would do, and leaves nothing behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from batch_pipelines.engine.errors import DeliveryError
from batch_pipelines.engine.rehearsal import rehearse
from tests.support_engine import KEY

if TYPE_CHECKING:
    from batch_pipelines.engine.rehearsal import Rehearsal
    from tests.engine.conftest import MakeSite
    from tests.support_engine import Site

pytestmark = pytest.mark.versions

DDL = "CREATE TABLE t (id int PRIMARY KEY, n int CHECK (n < 9), import_batch_id uuid)"
_LEDGER = ("import_history", "batch_table", "import_file", "import_reject", "crc32_audit")


def rehearsal(site: Site) -> Rehearsal:
    before = [site.count(f"SELECT count(*) FROM batch_audit.{name}") for name in _LEDGER]
    rows = site.sql("SELECT * FROM t ORDER BY id")
    with site.work() as (connection, work):
        found = rehearse(connection, work)
        assert not work.staging(work.run_id).exists()
    assert [site.count(f"SELECT count(*) FROM batch_audit.{name}") for name in _LEDGER] == before
    assert site.sql("SELECT * FROM t ORDER BY id") == rows
    return found


def test_it_says_what_would_be_written_and_what_set_aside(site: MakeSite) -> None:
    here = site(DDL, thresholds={})
    here.deliver({"a.csv": "id,n\n1,1\n1,2\nx,3\n4,10\n5,5\n"})
    found = rehearsal(here)
    (balance,) = found.balances
    assert (balance.source_records, balance.inserted, balance.rejected) == (5, 2, 3)
    reasons = {r.breach.constraint or r.breach.column: n for r, n in found.reasons.items()}
    assert reasons == {"t_pkey": 1, "id": 1, "t_n_check": 1}
    assert (found.problem, found.supersedes) == (None, None)

    batch = here.run()
    assert batch.written_records == 2
    assert rehearsal(here).supersedes == batch.batch_id


def test_it_says_that_a_threshold_would_be_broken(site18: MakeSite) -> None:
    here = site18(DDL)
    here.deliver({"a.csv": "id,n\n1,1\nx,3\n"})
    found = rehearsal(here)
    assert found.balances == ()
    assert found.problem is not None
    assert "1 of 2 records cannot be loaded, above 0" in found.problem
    assert "batch-pipelines rejects" not in found.problem
    assert sum(found.reasons.values()) == 1


def test_a_damaged_file_is_found(site18: MakeSite) -> None:
    here = site18(DDL)
    here.deliver({"a.csv": "id,n\n1,1\n"})
    (here.landing(KEY) / "a.csv.crc32c").write_text("00000000\n")
    with pytest.raises(
        DeliveryError, match=r"a\.csv: CRC32C is .{8}, but its sidecar says 00000000"
    ):
        rehearsal(here)
