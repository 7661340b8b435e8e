"""`cancel`: a batch in progress ends, with its process and its run; what is published does not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import dagster as dg
import psutil
import pytest

from tests.support_process import command
from tests.support_shop import DAY, FEED, orders

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support_shop import Shop

_AT = """
import os, signal, sys
from batch_pipelines.cli import main
from batch_pipelines.engine.failpoints import armed
number = int(sys.argv.pop(1))
def act(_):
    os.kill(os.getpid(), number) if number == signal.SIGSTOP else signal.pause()
with armed("checksum.read", act):
    main()
"""


@pytest.fixture
def typed(shop: Shop) -> Iterator[list[subprocess.Popen[str]]]:
    """Imports that stand still; they are gone after the test."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


def standing(shop: Shop, typed: list[subprocess.Popen[str]], number: int) -> subprocess.Popen[str]:
    """Import in a process that stands still in checksum: stopped, or waiting."""
    shop.deliver(DAY, orders(5))
    process = subprocess.Popen(
        [sys.executable, "-c", _AT, str(number), "import", FEED, "--batch", DAY],
        env=dict(os.environ), stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    typed.append(process)
    known = psutil.Process(process.pid)
    while not shop.query(
        "SELECT 1 FROM batch_audit.batch_stage WHERE stage = 'checksum'"
    ) or known.status() not in {psutil.STATUS_STOPPED, psutil.STATUS_SLEEPING}:
        assert process.poll() is None, process.communicate()
        time.sleep(0.2)
    return process


@pytest.mark.parametrize(
    ("number", "ending"),
    [
        pytest.param(0, "ended", id="works"),
        pytest.param(signal.SIGSTOP, "killed", id="hangs"),
    ],
)
def test_a_batch_in_progress_is_cancelled_with_its_process_and_its_run(
    shop: Shop, typed: list[subprocess.Popen[str]], number: int, ending: str
) -> None:
    process = standing(shop, typed, number)
    (batch,) = shop.batches()
    done = command("cancel", f"{FEED}/{DAY}", "--json", environment=dict(os.environ))
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["batch"]["status"], said["process"]) == ("FAILED", ending)
    assert said["next"] == f"batch-pipelines import {FEED} --batch {DAY}"
    assert process.wait(10) != 0
    assert shop.rows() == []
    why = shop.batch(batch.batch_id).error_details
    assert why is not None
    assert why.startswith("Cancelled by ")
    run = shop.instance.get_run_by_id(batch.batch_id)
    assert run is not None
    assert run.status in {dg.DagsterRunStatus.CANCELED, dg.DagsterRunStatus.FAILURE}
    # Whatever the instance says, the daemon does not retry it.
    assert run.tags["dagster/max_retries"] == "0"
    assert shop.run(DAY).success


def test_a_published_batch_is_not_cancelled_but_rolled_back(shop: Shop) -> None:
    shop.deliver(DAY, orders(5))
    result = shop.run(DAY)
    done = command("cancel", f"{FEED}/{DAY}", environment=dict(os.environ))
    assert done.returncode == 1
    assert f"batch-pipelines rollback {result.run_id[:8]} --reason TEXT" in done.stderr
    assert len(shop.rows()) == 5
    assert command("cancel", "orders/never", environment=dict(os.environ)).returncode == 2
