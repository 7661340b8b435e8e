"""Failed partitions are run again after growing pauses, never too often, never without hope."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_pipelines.engine.causes import CAUSES, HEALING
from batch_pipelines.engine.feed_parts.rerun import Rerun
from batch_pipelines.engine.rerun.deciding import Asked, decide, decide_asked
from batch_pipelines.engine.rerun.failed import Failed

NOW = dt.datetime(2026, 11, 22, 12, tzinfo=dt.UTC)
LOST = Failed("orders", "k", "b", "FAILED", "database", NOW, "old", 1)
HOUR = dt.timedelta(hours=1)

causes = st.sampled_from([*sorted(CAUSES), None])
states = st.sampled_from(["FAILED", "VALIDATION_FAILED", "ROLLED_BACK", "PUBLISHED", "SUCCESS"])
failures = st.builds(
    Failed, st.just("orders"), st.just("k"), st.just("b"), states, causes,
    st.datetimes(dt.datetime(2020, 1, 1), dt.datetime(2030, 1, 1), timezones=st.just(dt.UTC)),  # noqa: DTZ001
    st.sampled_from(["old", None]), st.integers(1, 10_000),
)  # fmt: skip
seconds = st.integers(0, 10**7)
reruns = st.builds(
    lambda attempts, first, more: Rerun.model_validate(
        {"attempts": attempts, "first_pause": f"{first}m", "longest_pause": f"{first + more}m"}
    ),
    st.integers(0, 100), st.integers(1, 4000), st.integers(0, 4000),
)  # fmt: skip


@given(reruns, st.integers(1, 10_000))
def test_pauses_grow_and_stay_between_their_limits(rerun: Rerun, tries: int) -> None:
    pause = rerun.pause(tries)
    assert rerun.first_pause <= pause <= rerun.longest_pause
    assert pause <= rerun.pause(tries + 1)
    assert rerun.pause(tries + 1) in {pause * 2, rerun.longest_pause}


@given(failures, reruns, seconds)
def test_what_cannot_heal_is_never_run_again_by_itself(
    failed: Failed, rerun: Rerun, later: int
) -> None:
    decision = decide(failed, rerun, failed.failed_at + dt.timedelta(seconds=later))
    hopeless = failed.status in {"ROLLED_BACK", "VALIDATION_FAILED"} or failed.cause not in HEALING
    if decision.run:
        assert not hopeless
        assert dt.timedelta(seconds=later) >= rerun.pause(failed.tries)
    if hopeless:
        assert decision.at is None


@given(reruns, st.sampled_from(sorted(HEALING)))
def test_what_fails_again_and_again_is_run_again_as_often_as_allowed_and_no_more(
    rerun: Rerun, cause: str
) -> None:
    """Given somebody who looks whenever a pause is over."""
    failed, now, done = replace(LOST, cause=cause), NOW, 0
    for _ in range(200):
        decision = decide(failed, rerun, now)
        if decision.run:
            done += 1
            failed = replace(failed, tries=failed.tries + 1, failed_at=now)
        elif decision.at is not None:
            assert decision.at > now
            now = decision.at
        else:
            break
    assert done == rerun.attempts


@pytest.mark.parametrize(
    ("failed", "later", "run"),
    [
        pytest.param(LOST, dt.timedelta(seconds=59), False, id="its pause is not over"),
        pytest.param(LOST, dt.timedelta(seconds=60), True, id="lost its database"),
        pytest.param(replace(LOST, tries=3), dt.timedelta(minutes=3), False, id="third time: not yet"),
        pytest.param(replace(LOST, tries=3), dt.timedelta(minutes=4), True, id="third time"),
        pytest.param(replace(LOST, tries=5), HOUR, True, id="fifth rerun"),
        pytest.param(replace(LOST, tries=6), HOUR, False, id="no sixth rerun"),
        pytest.param(replace(LOST, cause="dead_run"), HOUR, True, id="killed"),
        pytest.param(replace(LOST, status="SUCCESS", cause="disk_full"), HOUR, True, id="no bag yet"),
        pytest.param(replace(LOST, cause="delivery"), HOUR, False, id="wrong checksum"),
        pytest.param(replace(LOST, cause="threshold"), HOUR, False, id="too many rejects"),
        pytest.param(replace(LOST, cause="cancelled"), HOUR, False, id="somebody cancelled it"),
        pytest.param(replace(LOST, cause=None), HOUR, False, id="of before causes were kept"),
        pytest.param(replace(LOST, status="ROLLED_BACK"), HOUR, False, id="rolled back"),
        pytest.param(replace(LOST, status="VALIDATION_FAILED"), HOUR, False, id="rows differ"),
    ],
)  # fmt: skip
def test_by_itself(failed: Failed, later: dt.timedelta, run: bool) -> None:
    assert decide(failed, Rerun(), NOW + later).run == run


WRONG, BACK = replace(LOST, cause="delivery"), replace(LOST, status="ROLLED_BACK", cause=None)


@pytest.mark.parametrize(
    ("failed", "asked", "delivery", "run"),
    [
        pytest.param(replace(LOST, tries=99), Asked(), "old", True, id="limits do not count"),
        pytest.param(WRONG, Asked(), "old", False, id="a wrong checksum is wrong again"),
        pytest.param(WRONG, Asked(), "new", True, id="a new delivery"),
        pytest.param(WRONG, Asked(), None, False, id="not known what lies there"),
        pytest.param(WRONG, Asked(any_cause=True), "old", True, id="any cause"),
        pytest.param(WRONG, Asked(named=True), "old", True, id="named"),
        pytest.param(BACK, Asked(), "old", False, id="rolled back: the bad rows lie there still"),
        pytest.param(
            BACK, Asked(), "new", False, id="rolled back, and the sensor takes the new one"
        ),
        pytest.param(BACK, Asked(any_cause=True), "old", False, id="rolled back is no cause"),
        pytest.param(BACK, Asked(rolled_back=True), "old", True, id="rolled back, asked for"),
        pytest.param(BACK, Asked(named=True), "old", True, id="rolled back, named"),
    ],
)
def test_where_somebody_asks(failed: Failed, asked: Asked, delivery: str | None, run: bool) -> None:
    assert decide_asked(failed, asked, delivery).run == run


def test_a_feed_says_how_often_and_after_which_pauses() -> None:
    said = Rerun.model_validate({"attempts": 2, "first_pause": "2m", "longest_pause": "2h"})
    assert (said.first_pause, said.longest_pause) == (dt.timedelta(minutes=2), 2 * HOUR)
    assert Rerun.model_validate(said.model_dump(mode="json")) == said
    assert decide(LOST, Rerun(attempts=0), NOW + HOUR).run is False


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("first_pause", 60, "must be a duration"),
        ("first_pause", "soon", "a duration is a number"),
        ("first_pause", "2h", "must not be shorter than"),
        ("attempts", -1, "greater than or equal to 0"),
    ],
)
def test_what_cannot_be_meant_is_refused(key: str, value: object, message: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=message):
        Rerun.model_validate({key: value})
