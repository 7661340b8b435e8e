"""What tests of verification share: proving a batch of a site again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batch_pipelines.engine.verification.verify import Verifier

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.ledger.verifications import Difference, TableVerification
    from batch_pipelines.engine.verification.verify import Verification
    from tests.support_engine import Site


def verify(site: Site, batch: Batch) -> Verification:
    """Prove a batch again, over a connection as the program's."""
    verifier = Verifier(site.settings, {site.feed.feed: site.feed}, "a test")
    with site.database.connect("verify") as connection:
        return verifier.verify(connection, batch)


def verify_table(site: Site, batch: Batch) -> TableVerification:
    """Prove a batch of one table again."""
    (found,) = verify(site, batch).tables
    return found


def counts(found: TableVerification) -> tuple[int | None, int | None, int | None, int | None]:
    """Changed, missing, added and duplicated rows."""
    return found.changed, found.missing, found.added, found.duplicated


def named(details: Iterable[Difference], kind: str) -> dict[str, list[str] | None]:
    """The columns that differ in each row of a kind, by the first value of its key."""
    return {
        next(iter((each.key or {"": str(each.record)}).values())): each.columns
        for each in details
        if each.kind == kind
    }
