"""Which runs are dead, decided without a clock, a process or a database."""

from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_pipelines.engine.processes import Life, Process
from batch_pipelines.engine.recovery.held import Held
from batch_pipelines.engine.recovery.judging import (
    SeenRun,
    judge_lease,
    judge_run,
    judge_stalled,
)

PROCESS = Process("worker-1", 12)
LIVES: tuple[Life, ...] = ("alive", "dead", "unknown")


def held(*, locked: bool, expired_for: float) -> Held:
    return Held("orders", "k", 1, "r", PROCESS, expired_for, locked)


@pytest.mark.parametrize(
    ("locked", "lives", "expired_for", "why"),
    [
        pytest.param(False, "dead", -59, "ended without a word", id="killed: at once"),
        pytest.param(False, "unknown", -1, None, id="elsewhere: its lease is waited for"),
        pytest.param(False, "alive", -1, None, id="lost its connection only"),
        pytest.param(False, "unknown", 0.1, "lost the database", id="elsewhere, expired"),
        pytest.param(False, "alive", 0.1, "lost the database", id="cannot renew any more"),
        pytest.param(True, "alive", -1, None, id="works"),
        pytest.param(True, "dead", -1, None, id="the server has not noticed yet"),
        pytest.param(True, "alive", 29, None, id="was asleep, and may be about to renew"),
        pytest.param(True, "alive", 31, "hangs", id="hangs"),
        pytest.param(True, "unknown", 31, "hangs", id="hangs elsewhere"),
    ],
)
def test_a_lease_that_was_not_given_back(
    locked: bool, lives: Life, expired_for: float, why: str | None
) -> None:
    said = judge_lease(held(locked=locked, expired_for=expired_for), lives, lease_seconds=60)
    assert (said is None) == (why is None)
    assert said is None or why in said  # type: ignore[operator]


@given(st.booleans(), st.sampled_from(LIVES), st.floats(-600, 600), st.floats(1, 600))
def test_nobody_whose_lease_is_valid_is_dead_unless_his_process_and_session_are_gone(
    locked: bool, lives: Life, expired_for: float, lease_seconds: float
) -> None:
    said = judge_lease(
        held(locked=locked, expired_for=expired_for), lives, lease_seconds=lease_seconds
    )
    if expired_for <= 0 and (locked or lives != "dead"):
        assert said is None
    # A minute after the end of the usual lease everybody is found, whatever is known of him.
    if expired_for > lease_seconds / 2:
        assert said is not None


@given(st.sampled_from(LIVES), st.booleans(), st.floats(0, 1e6))
def test_a_run_without_lease_is_dead_only_if_its_process_is_known_to_be(
    lives: Life, started: bool, age: float
) -> None:
    said = judge_run(SeenRun("r", PROCESS, started, age), lives)
    assert (said is not None) == (lives == "dead")


@pytest.mark.parametrize(
    ("started", "age", "dead"),
    [(True, 599, False), (True, 601, True), (False, 10_000, False)],
    ids=["about to write its process down", "died before it could", "not started: Dagster's own"],
)
def test_a_run_that_has_not_written_its_process_down(started: bool, age: float, dead: bool) -> None:
    assert (judge_run(SeenRun("r", None, started, age), "unknown") is not None) == dead


@pytest.mark.parametrize(
    ("ended", "why"), [(None, None), ("failed", "failed between"), ("canceled", "was cancelled")]
)
def test_a_batch_between_two_stages(
    ended: Literal["failed", "canceled"] | None, why: str | None
) -> None:
    said = judge_stalled(ended)
    assert (said is None) if why is None else (said is not None and why in said)
