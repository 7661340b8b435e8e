"""Validating row digests: those of what a table holds now, against those of the source at publish.

For feeds that ask for it. What differs by itself is named elsewhere (`verification.naming`).
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import psycopg

from batch_pipelines.engine.digests import RowDigest
from batch_pipelines.engine.digests.recorded import asked, digest_today
from batch_pipelines.engine.digests.sql import digest_statement
from batch_pipelines.engine.ledger import proofs
from batch_pipelines.engine.ledger.proofs import Check
from batch_pipelines.engine.verification.rows import SNAPSHOT, batch_rows

if TYPE_CHECKING:
    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.ledger.proofs import Verdict
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.writing.auditing import Whereabouts

_APART = "records that are replayed wait apart from the rows that the digest is of"


def digest_check(connection: Connection, batch: Batch, full_name: str, place: Whereabouts) -> Check:
    """Take the digest of a batch's rows in a table once more.

    Args:
        connection: A connection in autocommit mode.
        batch: The batch.
        full_name: The table, as in `public.flights`.
        place: Where its rows are: there, or where they wait.

    Returns:
        The check `digest`; `UNVERIFIED` where no digest covers any column, or a column or its type has
        been changed so that none can be compared.
    """
    began = time.perf_counter()
    (recorded,) = (
        t for t in proofs.tables(connection, batch.batch_id) if t.target_table == full_name
    )
    expected = RowDigest(recorded.stored, recorded.digest_sum, recorded.digest_moment)
    if not place.is_whole:
        # What is asked is no table then, and has no rows that a digest was recorded of.
        return Check("digest", "", str(expected), _APART, "UNVERIFIED", 0.0)
    if place.relation is not None:
        recorded = replace(recorded, target_table=".".join(place.relation))
    statement = ""
    try:
        with connection.transaction():
            connection.execute(SNAPSHOT)
            rows, why = batch_rows(connection, batch, recorded)
            if not rows.columns.names:
                why = why or "no digest covers any column"
            else:
                statement = digest_statement(connection, *asked(rows)[0]).as_string(connection)
            # Rows that a later batch has updated by key stand in the images that it keeps.
            own, images = digest_today(connection, rows)
    except psycopg.DataError:
        why = "a value cannot be brought back to the type that it was sent in"
        own = images = RowDigest.zero()
    actual = own + images
    verdict: Verdict = "SUCCESS" if actual == expected else "FAILED"
    if why is not None:
        verdict = "UNVERIFIED"
    return Check(
        "digest", statement.strip(), str(expected), why or str(actual), verdict,
        round(time.perf_counter() - began, 6),
    )  # fmt: skip
