"""What can be seen and could not be validated: the trail has its details, and no alarm is false."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from batch_pipelines.engine.audit.verify import examine
from batch_pipelines.engine.bulk_write import bulk_write
from batch_pipelines.engine.errors import ValidationError
from batch_pipelines.engine.feeds import Feed
from batch_pipelines.engine.postgres.migrate import downgrade, upgrade
from batch_pipelines.engine.validate import require_valid, validate

if TYPE_CHECKING:
    from batch_pipelines.engine.ledger.batches import Batch
    from tests.engine.conftest import MakeSite
    from tests.support_engine import Site

DDL = """
CREATE TABLE parent (id int PRIMARY KEY);
INSERT INTO parent VALUES (1);
CREATE TABLE t (id int PRIMARY KEY, parent int REFERENCES parent, import_batch_id uuid);
"""
ROWS = {"a.csv": "id,parent\n1,1\n2,2\n3,3\n"}
# Of what a replay changes, of what it leaves alone, and of what the validation has left.
EDITS = {
    "import_reject": "UPDATE batch_audit.import_reject SET message = concat(message, 'x')",
    "batch_table": "UPDATE batch_audit.batch_table SET digest_sum = digest_sum + 1",
    "row_digest": "UPDATE batch_audit.row_digest SET digest_sum = digest_sum + 1",
    "critical_record": "UPDATE batch_audit.critical_record SET record_key = record_key || ' '",
    "import_file": "UPDATE batch_audit.import_file SET size = size + 1",
    "validation_log": "UPDATE batch_audit.validation_log SET exception = concat(exception, 'x')",
}


def lenient(make: MakeSite, publish: str = "direct") -> Site:
    here = make(DDL, thresholds={}, publish=publish)
    critical = [{"name": "late", "expression": "id >= 1"}]
    tables = [{"table": "public.t", "files": "*", "critical_when": critical}]
    here.feed = Feed.model_validate({**here.feed.model_dump(exclude_unset=True), "tables": tables})
    return here


def published(here: Site) -> Batch:
    """Publish a first delivery."""
    here.deliver(ROWS)
    return here.run(stages=["ingest", "checksum", "bulk_write"])


def replayed(here: Site) -> Batch:
    """Replay what has come to fit since."""
    here.load(ROWS)
    here.sql("INSERT INTO parent VALUES (2)")
    with here.work() as (connection, work):
        return bulk_write(connection, work, replay=True).batch


def fail_to_validate(here: Site, batch: Batch) -> None:
    """Validate, with the staged copies gone."""
    with here.work() as (connection, work):
        shutil.rmtree(work.staged_source(batch.batch_id), ignore_errors=True)
        with pytest.raises(ValidationError, match="its staged copy is gone"):
            validate(connection, work)


def supersede(here: Site, batch: Batch) -> None:
    """Import the same again, which takes its place."""
    here.run(force=True)
    assert [each.status for each in here.history()] == ["SUPERSEDED", "PARTIAL_SUCCESS"]
    assert here.history()[0].batch_id == batch.batch_id


def changed(here: Site, batch: Batch) -> set[str]:
    """Tables of which the trail says that details of the batch are not what they were."""
    with here.connection.transaction():
        found = examine(here.connection, here.settings.anchors_folder)
    assert found.at_work == 0
    message = f"batch {batch.batch_id} (orders/first): "
    # Of the other batch, which an edit may change as well, nothing is asked.
    return {
        each.message.removeprefix(message).split()[0] if each.kind == "root" else each.message
        for each in found.findings
        if each.kind != "root" or each.message.startswith(message)
    }


def require_edits_found(here: Site, batch: Batch) -> None:
    for table, statement in EDITS.items():
        with here.connection.transaction(force_rollback=True):
            here.sql(f"{statement} WHERE batch_id = %s", batch.batch_id)
            assert changed(here, batch) == {table}
    assert changed(here, batch) == set()


@pytest.mark.parametrize("publish", ["direct", "after_validation"])
def test_a_replay_that_cannot_be_validated_is_no_tampering(site18: MakeSite, publish: str) -> None:
    """Given a replay, tried and then superseded, only what somebody edits in between is reported."""
    here = lenient(site18, publish)
    batch = replayed(here)
    require_edits_found(here, batch)
    fail_to_validate(here, batch)
    require_edits_found(here, batch)
    supersede(here, batch)
    require_edits_found(here, batch)


@pytest.mark.parametrize("validated", ["before", "after", "never"])
def test_what_was_edited_since_the_replay_stays_found(site18: MakeSite, validated: str) -> None:
    """Neither a validation that cannot be made nor a correction vouches for what it has not changed."""
    here = lenient(site18)
    batch = replayed(here)
    if validated == "before":
        fail_to_validate(here, batch)
    for statement in EDITS.values():
        here.sql(f"{statement} WHERE batch_id = %s", batch.batch_id)
    assert changed(here, batch) == set(EDITS)
    if validated == "after":
        fail_to_validate(here, batch)
    supersede(here, batch)
    # The log is the one thing that a validation changes, so it is taken as it leaves it.
    assert changed(here, batch) == set(EDITS) - (
        {"validation_log"} if validated == "after" else set()
    )


def test_a_first_import_that_cannot_be_validated_is_covered(site18: MakeSite) -> None:
    here = lenient(site18)
    batch = published(here)
    fail_to_validate(here, batch)
    require_edits_found(here, batch)
    supersede(here, batch)
    require_edits_found(here, batch)


def test_a_batch_that_was_found_wrong_and_cannot_be_read_again(site18: MakeSite) -> None:
    here = lenient(site18)
    batch = published(here)
    here.sql("UPDATE t SET id = 9")
    with here.work() as (connection, work), pytest.raises(ValidationError, match="differ from"):
        require_valid(validate(connection, work))
    assert here.newest().status == "VALIDATION_FAILED"
    fail_to_validate(here, batch)
    require_edits_found(here, batch)


def test_an_upgrade_records_what_earlier_programs_left_unsaid(site18: MakeSite) -> None:
    here = lenient(site18)
    batch = replayed(here)
    downgrade(here.owner, "0040")
    for statement in EDITS.values():
        here.sql(f"{statement} WHERE batch_id = %s", batch.batch_id)
    upgrade(here.owner)
    require_edits_found(here, batch)
