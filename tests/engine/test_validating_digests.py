"""Where the feed asks for it, validate takes the row digests once more, and names what differs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from batch_pipelines.engine.errors import ValidationError
from batch_pipelines.engine.ledger import proofs
from batch_pipelines.engine.ledger.stages import STAGES
from tests.engine.verification.support_verify import verify_table

if TYPE_CHECKING:
    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.ledger.proofs import Check
    from tests.engine.conftest import MakeSite
    from tests.support_engine import Site

DDL = "CREATE TABLE t (id integer PRIMARY KEY, a integer, b text, import_batch_id uuid)"
FILES = {"f.csv": "id,a,b\n" + "".join(f"{n},{n},text {n}\n" for n in range(1, 7))}


def published(here: Site) -> Batch:
    here.deliver(FILES)
    return here.run(stages=STAGES[:3])


def digest_of(here: Site, batch: Batch) -> Check | None:
    (found,) = proofs.validations(here.connection, batch.batch_id)
    return next((check for check in found.checks if check.name == "digest"), None)


def test_the_digests_of_the_stored_rows_are_those_of_the_source(site: MakeSite) -> None:
    here = site(DDL, validate_digests=True)
    batch = published(here)
    here.run(stages=["validate"])
    check = digest_of(here, batch)
    assert check is not None
    assert (check.status, check.actual) == ("SUCCESS", check.expected)
    assert check.expected.startswith("rows=6 sum=")
    if here.connection.info.server_version >= 180_000:
        rows, total, moment = here.sql(check.sql)[0]
        assert check.actual == f"rows={rows} sum={total} moment={moment}"


@pytest.mark.versions
def test_a_swap_that_no_aggregate_shows_is_found_and_named(site: MakeSite) -> None:
    """Given two rows that have swapped a value, count, sum and bounds are what they were."""
    here = site(DDL)
    quiet = published(here)
    swap = "UPDATE t SET a = 5 - a WHERE id IN (2, 3)"
    here.sql(swap)
    here.run(stages=["validate"])
    assert digest_of(here, quiet) is None

    here.sql(swap)
    here.feed = here.feed.model_copy(update={"validate_digests": True})
    here.deliver({"f.csv": FILES["f.csv"].replace("text", "word")})
    batch = here.run(stages=STAGES[:3])
    here.sql(swap)
    with pytest.raises(ValidationError, match=r"public\.t digest\."):
        here.run(stages=["validate"])
    (found,) = proofs.validations(here.connection, batch.batch_id)
    assert [check.name for check in found.checks if check.status == "FAILED"] == ["digest"]
    assert found.rows is not None
    assert (found.rows.mismatches, found.rows.matches) == (2, 4)
    assert [(row.key, row.columns) for row in found.rows.details] == [
        ({"id": "2"}, ["a"]), ({"id": "3"}, ["a"]),
    ]  # fmt: skip


def test_where_no_digest_covers_a_column_the_check_is_unverified(site18: MakeSite) -> None:
    here = site18("CREATE TABLE t (b jsonb, import_batch_id uuid)", validate_digests=True)
    batch = here.load({"f.csv": "b\n[]\n{}\n"})
    check = digest_of(here, batch)
    assert check is not None
    assert (check.status, check.actual) == ("UNVERIFIED", "no digest covers any column")
    assert batch.status == "SUCCESS"


def test_rows_that_wait_are_digested_where_they_are(site18: MakeSite) -> None:
    """Given a feed that publishes after validation, a trigger and a column that it may change."""
    here = site18(
        DDL + "; CREATE FUNCTION up() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN NEW.b := upper(NEW.b); RETURN NEW; END';"
        "CREATE TRIGGER up BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION up()",
        validate_digests=True,
        publish="after_validation",
    )
    own = {"table": "public.t", "server_changed": ["b"]}
    here.feed = type(here.feed).model_validate(
        here.feed.model_dump(by_alias=True, exclude_unset=True) | {"tables": [own]}
    )
    batch = here.load(FILES)
    assert batch.status == "SUCCESS"
    check = digest_of(here, batch)
    assert check is not None
    assert (check.status, check.actual) == ("SUCCESS", check.expected)
    assert here.sql("SELECT b FROM t WHERE id = 1") == [("TEXT 1",)]
    assert verify_table(here, batch).status == "PARTIAL_SUCCESS"
