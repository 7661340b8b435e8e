"""Batches are found by what people type, and listed newest first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from batch_pipelines.engine.errors import FeedError
from batch_pipelines.engine.ledger import batches, stages
from tests.support_engine import feed_of

if TYPE_CHECKING:
    from batch_pipelines.engine.postgres.database import Connection, Database

FEED, OTHER = feed_of({"public.t": "*"}), feed_of({"public.t": "*"}, feed="others")
ONE = "aaaaaaaa-0000-4000-8000-000000000001"
TWO = "aaaaaaaa-0000-4000-8000-000000000002"
THREE = "bbbbbbbb-0000-4000-8000-000000000003"


@pytest.fixture
def ledger(database18: Database) -> Connection:
    """Two batches of a partition and one of another feed."""
    connection = database18.connect("test")
    for feed, key, run_id in ((FEED, "k", ONE), (FEED, "k", TWO), (OTHER, "k", THREE)):
        batches.start(connection, feed, key, run_id, requested_by="x", correlation_id=run_id)
    return connection


def test_attempts_of_a_partition_are_counted(ledger: Connection) -> None:
    with ledger:
        found = {batch.batch_id: batch.attempt for batch in batches.history(ledger)}
        assert found == {ONE: 1, TWO: 2, THREE: 1}
        assert [batch.batch_id for batch in batches.history(ledger)] == [THREE, TWO, ONE]
        assert [batch.batch_id for batch in batches.history(ledger, limit=1)] == [THREE]
        assert [batch.batch_id for batch in batches.history(ledger, feed="others")] == [THREE]
        batches.mark_failed(ledger, ONE, "why", "rows")
        assert [batch.batch_id for batch in batches.history(ledger, status="FAILED")] == [ONE]


@pytest.mark.parametrize(
    ("typed", "batch_id"),
    [(THREE, THREE), ("b", THREE), (ONE, ONE), ("orders/k", TWO), ("others/k", THREE)],
)
def test_a_batch_is_found_by_id_prefix_or_partition(
    ledger: Connection, typed: str, batch_id: str
) -> None:
    with ledger:
        assert batches.find(ledger, typed).batch_id == batch_id


@pytest.mark.parametrize(
    ("typed", "problem"),
    [
        ("aaaaaaaa", "Several batch ids begin with 'aaaaaaaa'"),
        ("c", "No batch id begins with 'c'"),
        ("", "No batch id begins with ''"),
        ("%", "No batch id begins with '%'"),
        ("________-", "No batch id begins with"),
        ("orders/none", "There is no batch of orders/none"),
        ("none/k", "There is no batch of none/k"),
    ],
)
def test_what_is_not_one_batch_is_refused(ledger: Connection, typed: str, problem: str) -> None:
    with ledger, pytest.raises(FeedError, match=problem) as error:
        batches.find(ledger, typed)
    assert "`batch-pipelines batches` lists them." in str(error.value)


def test_an_id_of_no_batch_is_refused(ledger: Connection) -> None:
    with ledger, pytest.raises(FeedError, match=f"There is no batch {ONE[:-1]}9"):
        batches.by_id(ledger, ONE[:-1] + "9")


def test_a_verdict_ends_its_stage(ledger: Connection) -> None:
    """Given a run that is killed right after its verdict, nothing is left in progress."""
    with ledger:
        for stage in ("ingest", "bulk_write", "validate"):
            stages.start(ledger, TWO, stage, TWO)
        batches.mark_published(ledger, TWO, 1, 0, 0)
        batches.mark_valid(ledger, TWO)
        batches.mark_duplicate(ledger, TWO, ONE)
        ended = stages.of_batch(ledger, TWO)
        assert {record.status for record in ended.values()} == {"SUCCESS"}
        stages.end(ledger, TWO, "validate", "too late", "rows")
        assert stages.of_batch(ledger, TWO) == ended
