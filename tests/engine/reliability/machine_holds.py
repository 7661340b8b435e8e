"""Whether all is as the model says: table, states, books, quarantine, proofs, audit trail and bags."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from batch_pipelines.engine.archiving.verify import ArchiveVerifier
from batch_pipelines.engine.audit.verify import verify_audit
from batch_pipelines.engine.ledger import batches
from tests.engine.reliability.machine_model import EDGES, IN_FORCE, Row
from tests.engine.verification.support_verify import verify

if TYPE_CHECKING:
    from collections.abc import Collection

    from tests.engine.reliability.machine_model import Model
    from tests.support_engine import Site

_STATES = "SELECT batch_id::text, status FROM batch_audit.import_history"
_REJECTS = """
SELECT batch_id::text, record_number, sqlstate FROM batch_audit.import_reject
WHERE replayed_at IS NULL ORDER BY 1, 2
"""
_BALANCES = """
SELECT batch_id::text, inserted, removed, rejected FROM batch_audit.batch_table
"""
_LEFT = """
SELECT (SELECT count(*) FROM batch_audit.staged_table)
     + (SELECT count(*) FROM pg_class WHERE relnamespace = 'batch_staging'::regnamespace)
"""


def require_rows(site: Site, model: Model) -> None:
    """Every row, with its stamp."""
    found = {
        number: Row((name, size), stamp)
        for number, name, size, stamp in site.sql(
            "SELECT id, name, size, import_batch_id::text FROM t"
        )
    }
    assert found == model.rows


def require_states(site: Site, model: Model, before: dict[str, str]) -> dict[str, str]:
    """Every batch is what it should be, and became it along an edge."""
    found = dict(site.sql(_STATES))
    assert found == {n: each.status for n, each in model.batches.items()}
    for batch_id, status in found.items():
        was = before.get(batch_id)
        assert status == was or status in EDGES[was], (was, status)
    return found


def require_books(site: Site, model: Model) -> None:
    """Rows and rejects are the records, and what is set aside is in the quarantine."""
    expected = [
        (batch_id, number, sqlstate)
        for batch_id, each in sorted(model.batches.items())
        for number, sqlstate in sorted(each.rejects.items())
    ]
    assert site.sql(_REJECTS) == expected
    for batch_id, inserted, _, rejected in site.sql(_BALANCES):
        batch = model.batches[batch_id]
        if batch.status in {"IN_PROGRESS", "FAILED"}:
            continue
        assert (inserted, rejected) == (len(batch.rows), len(batch.rejects))
        assert inserted + rejected == len(batch.records)
    assert site.count(_LEFT) == 0


def require_proofs(site: Site, model: Model) -> None:
    """Verify finds the rows that were touched by hand, and no others."""
    for batch_id, each in model.batches.items():
        if each.status not in IN_FORCE:
            continue
        (found,) = verify(site, batches.by_id(site.connection, batch_id)).tables
        touched = model.touched(each)
        missing = {number for number in touched if number not in model.rows}
        assert found.status == ("FAILED" if touched else "SUCCESS"), (batch_id, found)
        if touched:
            assert (found.missing, found.changed, found.added) == (
                len(missing), len(touched - missing), 0,
            ), found  # fmt: skip


def require_trail(site: Site) -> None:
    """The audit trail is whole, and says of each batch what the ledger says."""
    found = verify_audit(site.connection, site.settings.home / "anchors")
    assert not found.findings, found.findings


def require_bags(site: Site, unknown: Collection[str]) -> None:
    """Every bag is as it was sealed, and known but those of a few batches.

    Args:
        site: Where.
        unknown: Batches that died between sealing a bag and telling the ledger.
    """
    verifier = ArchiveVerifier(
        site.settings, {site.feed.feed: site.feed}, lambda: dt.datetime.now(dt.UTC)
    )
    for found in verifier.of_many(site.connection, None, None):
        if found.batch_id in unknown:
            assert found.status in {"VALID", "UNKNOWN"}, found
        else:
            assert found.status == "VALID", found
