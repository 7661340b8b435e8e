"""Legal holds: over what they are, and that a deletion and a hold never miss each other."""

from __future__ import annotations

import datetime as dt
from threading import Event, Thread
from typing import TYPE_CHECKING

import pytest

from batch_pipelines.engine.errors import HoldError
from batch_pipelines.engine.retention import holds
from batch_pipelines.engine.retention.holds import Scope

if TYPE_CHECKING:
    from tests.engine.conftest import MakeSite
    from tests.support_engine import Site

DDL = "CREATE TABLE t (a int, import_batch_id uuid)"
DAY = dt.timedelta(days=1)


def held(site: Site, batch_id: str) -> bool:
    return bool(holds.over(site.connection, batch_id))


def test_a_hold_is_over_what_it_says_until_it_is_lifted(site18: MakeSite) -> None:
    here = site18(DDL)
    one, two = (here.load({"a.csv": f"a\n{n}\n"}, key).batch_id for n, key in enumerate("ab"))
    now = dt.datetime.now(dt.UTC)
    over_both = [
        Scope(feed="orders"), Scope(), Scope(since=now - DAY), Scope(until=now + DAY),
        Scope(feed="orders", since=now - DAY, until=now + DAY),
    ]  # fmt: skip
    over_none = [Scope(feed="others"), Scope(since=now + DAY), Scope(until=now - DAY)]
    cases = {Scope(batch_id=one): (True, False)}
    cases |= dict.fromkeys(over_both, (True, True)) | dict.fromkeys(over_none, (False, False))
    for scope, expected in cases.items():
        hold = holds.set_hold(here.connection, scope, reason="case 17", by="counsel")
        assert (held(here, one), held(here, two)) == expected, scope
        lifted = holds.lift_hold(here.connection, hold.hold_id, reason="settled", by="clerk")
        assert (lifted.lifted_by, lifted.lift_reason, lifted.scope) == ("clerk", "settled", scope)
        assert not held(here, one)
    assert holds.listed(here.connection) == []
    assert len(holds.listed(here.connection, lifted=True)) == len(cases)
    told = here.sql("SELECT action, principal_id FROM batch_audit.audit_event"
                    " WHERE resource_type = 'hold' ORDER BY seq LIMIT 2")  # fmt: skip
    assert told == [("hold.set", "counsel"), ("hold.lifted", "clerk")]


def test_what_cannot_be_meant_is_refused(site18: MakeSite) -> None:
    here = site18(DDL)
    now = dt.datetime.now(dt.UTC)
    with pytest.raises(HoldError, match="say why"):
        holds.set_hold(here.connection, Scope(), reason="  ", by="counsel")
    with pytest.raises(HoldError, match="over nothing"):
        holds.set_hold(here.connection, Scope(since=now, until=now - DAY), reason="x", by="counsel")
    with pytest.raises(HoldError, match="no hold 7"):
        holds.lift_hold(here.connection, 7, reason="x", by="clerk")
    hold = holds.set_hold(here.connection, Scope(), reason="x", by="counsel")
    holds.lift_hold(here.connection, hold.hold_id, reason="y", by="clerk")
    with pytest.raises(HoldError, match="lifted already, by clerk: y"):
        holds.lift_hold(here.connection, hold.hold_id, reason="z", by="clerk")


@pytest.mark.parametrize("isolation", ["READ COMMITTED", "REPEATABLE READ"])
def test_a_deletion_and_a_hold_wait_for_each_other(site18: MakeSite, isolation: str) -> None:
    here = site18(DDL)
    batch_id = here.load({"a.csv": "a\n1\n"}).batch_id
    done = Event()

    def hold() -> None:
        with here.database.connect("hold") as connection:
            holds.set_hold(connection, Scope(), reason="case 17", by="counsel")
        done.set()

    setting = Thread(target=hold)
    with here.database.connect("delete") as connection:
        with connection.transaction():
            connection.execute(f"SET TRANSACTION ISOLATION LEVEL {isolation}".encode())
            holds.lock_holds(connection)
            assert not holds.over(connection, batch_id)
            setting.start()
            # It is there, and waits.
            while not here.count("SELECT count(*) FROM pg_locks WHERE NOT granted"
                                 " AND relation = 'batch_audit.legal_hold'::regclass"):  # fmt: skip
                assert not done.is_set()
        assert done.wait(60)
        with connection.transaction():
            connection.execute(f"SET TRANSACTION ISOLATION LEVEL {isolation}".encode())
            holds.lock_holds(connection)
            assert holds.over(connection, batch_id)
    setting.join()
