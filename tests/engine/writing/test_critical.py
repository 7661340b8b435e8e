"""Critical rows: told at once by key and condition, once each, and never with a value of theirs."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pydantic
import pytest

from batch_pipelines.engine.alerts import acknowledge, listed
from batch_pipelines.engine.alerts.channels import read_channels
from batch_pipelines.engine.alerts.send import send_waiting
from batch_pipelines.engine.bulk_write import bulk_write
from batch_pipelines.engine.errors import FeedError, PublishError
from batch_pipelines.engine.ledger import critical
from batch_pipelines.engine.ledger.stages import STAGES
from tests.support_channels import running_service
from tests.support_engine import KEY, do_stage, new_id
from tests.support_process import At, importing
from tests.support_rollback import take_back

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batch_pipelines.engine.alerts import Recorded
    from tests.engine.conftest import MakeSite
    from tests.support_channels import Service
    from tests.support_engine import Site

DDL = """
CREATE TABLE t (sample text, test text, value numeric(6,2), note text, import_batch_id uuid,
                PRIMARY KEY (sample, test));
CREATE INDEX ON t (import_batch_id);
"""
KEYLESS = DDL.replace(",\n                PRIMARY KEY (sample, test)", "")
HIGH = {"name": "high", "expression": "test = 'K' AND value > 6.5"}
LOW = {"name": "low", "range": {"column": "value", "max": 2.5}}
HEAD = "sample,test,value,note\n"
FIRST = HEAD + "s1,K,7.77,quiet\ns2,K,4,quiet\ns3,K,1.11,quiet\ns4,K,,quiet\ns5,GLU,7.77,quiet\n"
TWO = ["sample=s1, test=K", "sample=s3, test=K"]


@pytest.fixture
def service() -> Iterator[Service]:
    with running_service() as service:
        yield service


def watching(
    make: MakeSite,
    service: Service | None,
    *,
    ddl: str = DDL,
    table: dict[str, Any] | None = None,
    told: dict[str, Any] | None = None,
    **more: Any,
) -> Site:
    there = make(ddl, thresholds={}, **more)
    asked = {"table": "public.t", "critical_when": [HIGH, LOW], **(table or {})}
    feed = {**there.feed.model_dump(), "tables": [asked], "critical": told or {}}
    there.feed = there.feed.model_validate(feed)
    if service is not None:
        alerts = pydantic.SecretStr(f"lab={service.url}")
        there.settings = there.settings.model_copy(update={"alerts": alerts})
    return there


def raised(site: Site) -> list[Recorded]:
    """What was raised, oldest first."""
    return listed(site.connection)[::-1]


def records(site: Site) -> list[object]:
    return [each.alert.details.get("record") for each in raised(site)]


def send(site: Site, later: dt.timedelta = dt.timedelta()) -> int:
    """Send what waits, as the sensor does."""
    return send_waiting(
        site.connection,
        read_channels(site.settings.alerts),
        lambda: dt.datetime.now(dt.UTC) + later,
        budget=dt.timedelta(seconds=20),
    ).sent


def test_each_is_told_by_the_run_itself_by_key_and_condition(
    site: MakeSite, service: Service
) -> None:
    there = watching(site, service, told={"channels": "lab"})
    batch = there.load({"t.csv": FIRST})
    assert (batch.status, batch.critical_records) == ("SUCCESS", 2)
    assert service.titles == [
        f"[critical] orders/{KEY}: high is critical: sample=s1, test=K of public.t",
        f"[critical] orders/{KEY}: low is critical: sample=s3, test=K of public.t",
    ]
    assert [each["message"].splitlines()[:3] for each in service.got] == [
        ["condition: high", "table: public.t", f"record: {TWO[0]}"],
        ["condition: low", "table: public.t", f"record: {TWO[1]}"],
    ]
    text = str(service.got) + str(there.sql("SELECT * FROM batch_audit.alert"))
    text += str(there.sql("SELECT * FROM batch_audit.critical_record"))
    assert not any(value in text for value in ("7.77", "1.11", "quiet"))
    # From receipt to ledger, and to the channel.
    for each in raised(there):
        assert each.alert.occurred_at == batch.started_at
    high, low = critical.of_batch(there.connection, batch.batch_id)
    assert (high.condition, high.records, high.told_before) == ("high", 1, 0)
    assert low.raised_after is not None
    assert low.sent_after is not None
    assert 0 < low.raised_after <= low.sent_after


def test_again_tells_nobody(site18: MakeSite, service: Service) -> None:
    there = watching(site18, service)
    there.load({"t.csv": FIRST})
    assert there.run().status == "DUPLICATE"
    there.run(stages=STAGES[2:3])
    assert send(there) == 0
    assert (records(there), len(service.got)) == (TWO, 2)


@pytest.mark.parametrize("write", ["insert", "upsert"])
def test_of_a_correction_only_what_is_new_is_told(
    site18: MakeSite, service: Service, write: str
) -> None:
    there = watching(site18, service, table={"write": write})
    first = there.load({"t.csv": FIRST})
    # s1 as it was but for its note, s2 has become critical, s3 is another value, s6 is new.
    changed = HEAD + "s1,K,7.77,loud\ns2,K,9,quiet\ns3,K,1,quiet\ns6,K,8,quiet\n"
    second = there.load({"t.csv": changed})
    assert second.critical_records == 4
    assert records(there)[2:] == ["sample=s2, test=K", "sample=s6, test=K", "sample=s3, test=K"]
    assert len(service.got) == 5
    high, low = critical.of_batch(there.connection, second.batch_id)
    assert (high.records, high.told_before, low.records, low.told_before) == (3, 1, 1, 0)
    # The third supersedes the second: what the first had told is known still.
    third = there.load({"t.csv": changed + "s7,K,8,quiet\n"})
    assert records(there)[5:] == ["sample=s7, test=K"]
    assert third.critical_records == 5
    gone = {each.alert.batch_id: each.batch_gone for each in raised(there)}
    corrected = "superseded by a corrected delivery"
    assert gone == {first.batch_id: corrected, second.batch_id: corrected, third.batch_id: None}


@pytest.mark.versions
def test_a_correction_of_which_a_row_does_not_fit_is_told_of_as_well(site: MakeSite) -> None:
    """Given rows that went straight into the table, those of the correction go by staged tables."""
    there = watching(site, None)
    there.load({"t.csv": FIRST})
    batch = there.load({"t.csv": FIRST + "s6,K,8,quiet\ns6,K,9,again\n"})
    assert (batch.status, batch.rejected_records) == ("PARTIAL_SUCCESS", 1)
    assert records(there)[2:] == ["sample=s6, test=K"]


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ({"a": "1", "b": "2"}, "a=1, b=2"),
        ({"a": "1, b=2", "b": "3"}, 'a="1, b=2", b=3'),
        ({"a": "null", "b": None}, 'a="null", b=null'),
        ({"a": "x\nacknowledge: nothing", "b": "ü 100%"}, 'a="x\\nacknowledge: nothing", b=ü 100%'),
    ],
)
def test_no_two_keys_are_told_in_the_same_words(key: dict[str, str | None], told: str) -> None:
    record = critical.Untold(1, "public.t", "high", json.dumps(dict(sorted(key.items())[::-1])))
    assert record.place(("a", "b")) == told


def test_a_condition_that_the_feed_did_not_have_is_told_of_a_correction(site18: MakeSite) -> None:
    there = watching(site18, None, table={"critical_when": [HIGH]})
    there.load({"t.csv": FIRST})
    tables = [{"table": "public.t", "critical_when": [HIGH, LOW]}]
    there.feed = there.feed.model_validate({**there.feed.model_dump(), "tables": tables})
    there.load({"t.csv": FIRST + "s6,K,4,\n"})
    assert records(there) == TWO


@pytest.mark.parametrize("children", [False, True])
def test_rows_that_wait_are_told_of_when_they_become_visible(
    site18: MakeSite, service: Service, children: bool
) -> None:
    more = "CREATE TABLE c (sample text, test text, FOREIGN KEY (sample, test) REFERENCES t);"
    there = watching(site18, service, ddl=DDL + more * children, publish="after_validation")
    there.deliver({"t.csv": FIRST})
    there.run(stages=STAGES[:3])
    assert raised(there) == []
    batch = there.run(stages=STAGES[3:4])
    assert (batch.status, batch.critical_records, records(there)) == ("SUCCESS", 2, TWO)
    assert len(service.got) == 2
    there.load({"t.csv": FIRST + "s6,K,8,quiet\n"})
    assert records(there)[2:] == ["sample=s6, test=K"]


def test_rules_come_first_and_a_replay_tells_of_what_it_loads(site18: MakeSite) -> None:
    there = watching(site18, None, ddl=DDL + "CREATE TABLE known (sample text PRIMARY KEY);")
    rule = {"name": "known", "references": {"columns": ["sample"], "table": "public.known"}}
    tables = [{**there.feed.tables[0].model_dump(), "rules": [rule]}]
    there.feed = there.feed.model_validate({**there.feed.model_dump(), "tables": tables})
    there.sql("INSERT INTO known VALUES ('s1'), ('s2')")
    batch = there.load({"t.csv": FIRST})
    assert (batch.status, batch.critical_records, records(there)) == ("PARTIAL_SUCCESS", 1, TWO[:1])
    there.sql("INSERT INTO known VALUES ('s3')")
    with there.work() as (connection, work):
        assert bulk_write(connection, work, replay=True).batch.critical_records == 2
    assert records(there) == TWO


def test_without_a_key_a_row_is_told_by_file_and_record(site: MakeSite) -> None:
    there = watching(site, None, ddl=KEYLESS)
    again = HEAD + "s1,K,7.77,quiet\ns8,K,7,\ns8,K,7,\n"
    there.load({"a.csv": FIRST, "b.csv": again})
    assert sorted(map(str, records(there))) == [
        "file=a.csv, record=1", "file=a.csv, record=3", "file=b.csv, record=1",
        "file=b.csv, record=2", "file=b.csv, record=3",
    ]  # fmt: skip
    there.load({"b.csv": FIRST + "s9,K,7,\n"})
    assert records(there)[5:] == ["file=b.csv, record=6"]


def test_many_are_told_singly_up_to_a_number_and_the_rest_together(
    site18: MakeSite, service: Service
) -> None:
    there = watching(site18, service, told={"told_singly": 3, "escalate_after": "15m"})
    many = HEAD + "".join(f"s{n:04},K,{9 if n % 2 else 1},\n" for n in range(300))
    batch = there.load({"t.csv": many})
    assert batch.critical_records == 300
    assert len(service.got) == 4
    *_, rest = raised(there)
    assert rest.alert.subject == f"orders/{KEY}: 297 more rows are critical"
    assert dict(list(rest.alert.details.items())[:2]) == {
        "high in public.t": 147, "low in public.t": 150
    }  # fmt: skip
    told = (
        "SELECT count(*) FROM batch_audit.critical_record c JOIN batch_audit.alert a ON alert_key ="
    )
    assert there.count(f"{told} deduplication_key") == 300
    # All of them are told: a correction tells only of the one that is new.
    there.load({"t.csv": many + "s0300,K,9,\n"})
    assert records(there)[4:] == ["sample=s0300, test=K"]


def test_killed_before_it_has_told_the_sensor_tells(site18: MakeSite, service: Service) -> None:
    there = watching(site18, service)
    there.deliver({"t.csv": FIRST})
    with importing(there, new_id(), at=At("bulk_write.after_commit")) as child:
        assert child.outcome() is None
    assert (records(there), service.got) == (TWO, [])
    assert send(there) == 2
    assert len(service.got) == 2


def test_killed_before_the_commit_nothing_is_told(site18: MakeSite, service: Service) -> None:
    there = watching(site18, service)
    there.deliver({"t.csv": FIRST})
    with importing(there, new_id(), at=At("bulk_write.before_commit")) as child:
        assert child.outcome() is None
    assert (records(there), send(there)) == ([], 0)
    assert there.run().status == "SUCCESS"
    assert len(service.got) == 2


def test_a_channel_that_fails_fails_no_batch_and_is_said(
    site18: MakeSite, service: Service
) -> None:
    there = watching(site18, service)
    service.status = 500
    there.deliver({"t.csv": FIRST})
    said: list[str] = []
    with there.work(notice=said.append) as (connection, work):
        for stage in STAGES[:2]:
            do_stage(stage, connection, work)
        assert bulk_write(connection, work).batch.status == "PUBLISHED"
        broken = replace(work, settings=work.settings.model_copy(
            update={"alerts": pydantic.SecretStr("no channel")}))  # fmt: skip
        assert not bulk_write(connection, broken).worked
    assert said[0] == "Channel lab: it answered 500; the sensor tries again."
    assert said[-1].startswith("Alerts of the batch wait for the sensor: BATCH_PIPELINES_ALERTS")
    service.status = 200
    assert send(there, dt.timedelta(minutes=1)) == 2


def test_nobody_acknowledges_so_others_are_told(site18: MakeSite, service: Service) -> None:
    told = {"channels": ["lab"], "escalate_after": "15m", "escalate_to": "chief"}
    there = watching(site18, service, told=told)
    with running_service() as chief:
        alerts = pydantic.SecretStr(f"lab={service.url} chief={chief.url}")
        there.settings = there.settings.model_copy(update={"alerts": alerts})
        batch = there.load({"t.csv": FIRST})
        first, _ = raised(there)
        acknowledge(there.connection, first.alert_id, by="a nurse")
        assert send(there, dt.timedelta(minutes=14)) == 0
        take_back(there, batch.batch_id)
        assert send(there, dt.timedelta(minutes=16)) == 1
        (message,) = chief.got
    assert message["title"].startswith("[critical, not acknowledged] ")
    assert TWO[1] in message["title"]
    # That the row is gone is told, too.
    assert f"batch: {batch.batch_id}, rolled back" in message["message"]
    assert [each.batch_gone for each in raised(there)] == ["rolled back"] * 2
    # Its rows become visible again as those of another batch.
    there.run()
    assert records(there) == TWO * 2


def test_a_condition_without_an_answer_fails_the_batch(site18: MakeSite) -> None:
    ratio = {"name": "ratio", "expression": "10 / value > 1"}
    there = watching(site18, None, table={"critical_when": [ratio]})
    with pytest.raises(
        PublishError, match=r"cannot be computed of some row \(one of ratio; SQLSTATE"
    ):
        there.load({"t.csv": HEAD + "s1,K,0,\n"})
    assert (there.rows(), raised(there)) == ([], [])


@pytest.mark.parametrize(
    ("condition", "why"),
    [
        ({"expression": "valeu > 1"}, "condition odd of public.t is refused by PostgreSQL"),
        ({"range": {"column": "valeu", "min": 1}}, "did you mean value?"),
        ({"expression": "random() > 1"}, "whose answer changes from call to call"),
    ],
)
def test_what_postgresql_does_not_understand_is_refused(
    site18: MakeSite, condition: dict[str, Any], why: str
) -> None:
    there = watching(site18, None, table={"critical_when": [{"name": "odd", **condition}]})
    with pytest.raises(FeedError) as refused:
        there.load({"t.csv": FIRST})
    assert why in str(refused.value)
