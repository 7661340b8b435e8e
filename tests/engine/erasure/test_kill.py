"""An erasure killed at any step leaves each place as it was or without the person, and goes on."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from batch_pipelines.engine.errors import ErasureError
from batch_pipelines.engine.failpoints import armed
from batch_pipelines.engine.ledger import erasures
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
from tests.engine.test_reprocessing import reprocess
from tests.engine.verification.support_verify import verify
from tests.support_process import FORK
from tests.support_soak import short_or_long

if TYPE_CHECKING:
    from tests.engine.conftest import MakeSite
    from tests.support_engine import Site

TABLES = ("erase.locked", "erase.deleted", "erase.before_commit", "erase.after_commit")
BAGS = (
    "erase.written", "erase.secured", "erase.sealed", "erase_bag.before_commit",
    "erase_bag.after_commit", "erase.removing", "archive.removing", "archive.renamed",
)  # fmt: skip


def _main(site: tuple[Any, ...], place: str) -> None:
    from tests.support_engine import Site  # noqa: PLC0415  # in the process that is killed

    database, settings, feed = site
    with database.connect("test") as connection:
        here = Site(database, settings, feed, connection)
        with armed(place, lambda _: os.kill(os.getpid(), signal.SIGKILL)):
            eraser(here).erase(request())


def killed_at(site: Site, place: str) -> None:
    """Erase in a process that dies at a failpoint, and wait until its backends are gone."""
    what = ((site.database, site.settings, site.feed), place)
    process = FORK.Process(target=_main, args=what, daemon=True)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL, place
    process.close()
    site.sql(
        "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity"
        " WHERE application_name LIKE 'batch-pipelines erase%' AND pid <> pg_backend_pid()"
        " AND datname = current_database()"
    )


@short_or_long("every", 3, 1)
def test_killed_at_each_step_it_goes_on_and_ends_right(site18: MakeSite, every: int) -> None:
    there = open_laboratory(site18)
    fill(there)
    for place in (*TABLES, *BAGS)[1::every]:
        killed_at(there, place)
        gone = place in {"erase.after_commit", *BAGS}
        assert patients(there) == (0 if gone else 2), place
        for batch in there.history():
            for table in verify(there, batch).tables:
                assert table.status == "SUCCESS", (place, table)
        (begun,) = erasures.unfinished(there.connection)
        assert begun.key_hash is not None
    with pytest.raises(ErasureError, match="Somebody is being erased"):
        reprocess(there, there.history()[2], "three")

    done = eraser(there).erase(request())
    assert done.erasure is not None
    assert done.erasure.erasure_id == begun.erasure_id
    assert left_of(there, *OWN) == []
    require_proven(there)


def test_what_has_left_the_tables_is_ended_without_a_key(site18: MakeSite) -> None:
    there = open_laboratory(site18)
    fill(there)
    killed_at(there, "erase.locked")
    with pytest.raises(ErasureError, match="nothing has left the tables yet"):
        eraser(there).resume()
    killed_at(there, "erase.after_commit")
    (done,) = eraser(there).resume()
    assert done.erasure is not None
    assert done.erasure.state == "DONE"
    assert eraser(there).resume() == []
    assert left_of(there, *OWN) == []
    require_proven(there)
