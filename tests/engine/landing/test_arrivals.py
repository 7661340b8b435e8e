"""The decision about landing: nothing twice, nothing lost, never too much, the oldest first."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from batch_pipelines.engine.landing.arrivals import ASKED, Waiting, changed, decide, turn
from batch_pipelines.engine.landing.deliveries import Delivery
from batch_pipelines.engine.ledger.arrivals import Tried

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from batch_pipelines.engine.landing.arrivals import Decision

NOW = 1_000_000.0


def delivery(fingerprint: str, *, age: float = 100) -> Delivery:
    return Delivery((), (), fingerprint, NOW - age)


def chosen(
    landed: Mapping[str, Delivery],
    tried: Sequence[Tried] = (),
    *,
    asked: Sequence[str] = (),
    in_work: Sequence[str] = (),
    waiting: Sequence[Waiting] = (),
    most: int = 100,
) -> Decision:
    known = {each.partition_key: each for each in tried}
    return decide(
        changed(landed, known),
        known,
        {each.key: each for each in waiting},
        in_work=set(in_work),
        asked=lambda keys: set(keys) & set(asked),
        most=most,
        now=NOW,
    )


def launched(decision: Decision) -> list[str]:
    return [arrival.key for arrival in decision.launch]


def test_a_delivery_that_nobody_knows_is_launched() -> None:
    decision = chosen({"a": delivery("1")})
    assert [arrival.run_key for arrival in decision.launch] == ["a:1:1"]
    assert launched(chosen({})) == []


def test_what_a_batch_has_looked_at_is_not_launched_however_it_ended() -> None:
    for status in ("SUCCESS", "FAILED", "ROLLED_BACK", "DUPLICATE", "IN_PROGRESS"):
        assert launched(chosen({"a": delivery("1")}, [Tried("a", "1", 1, status)])) == []


def test_what_was_asked_for_is_not_launched_and_is_told() -> None:
    # Its run was cancelled in the queue, or ended before it knew what was delivered.
    decision = chosen({"a": delivery("1"), "b": delivery("2")}, asked=["a:1:1"])
    assert (launched(decision), decision.without_word) == (["b"], 1)


def test_a_batch_that_saw_no_delivery_does_not_make_it_launched_again() -> None:
    tried = [Tried("a", None, 0, "FAILED")]
    assert launched(chosen({"a": delivery("1")}, tried)) == ["a"]
    assert launched(chosen({"a": delivery("1")}, tried, asked=["a:1:1"])) == []


def test_a_corrected_delivery_is_launched_and_so_is_one_put_back_as_it_was() -> None:
    asked = ["a:1:1"]
    again = chosen({"a": delivery("2")}, [Tried("a", "1", 1, "SUCCESS")], asked=asked)
    assert [arrival.run_key for arrival in again.launch] == ["a:2:2"]
    back = chosen({"a": delivery("1")}, [Tried("a", "2", 2, "SUCCESS")], asked=[*asked, "a:2:2"])
    assert [arrival.run_key for arrival in back.launch] == ["a:1:3"]


def test_what_another_partition_has_loaded_is_launched_here() -> None:
    assert launched(chosen({"a": delivery("1")}, [Tried("b", "1", 1, "SUCCESS")])) == ["a"]


def test_a_partition_at_work_waits() -> None:
    decision = chosen({"a": delivery("2"), "b": delivery("1")}, in_work=["a"])
    assert launched(decision) == ["b"]
    assert [(one.key, one.kind, one.unchanged_seconds) for one in decision.waiting] == [
        ("a", "in work", 100.0)
    ]


def test_what_waits_is_left_alone() -> None:
    waiting = [Waiting("a", "incomplete", "it grows", 3.0)]
    decision = chosen({"a": delivery("1"), "b": delivery("2")}, waiting=waiting)
    assert (launched(decision), decision.waiting) == (["b"], tuple(waiting))


def test_the_oldest_come_first_and_the_others_later() -> None:
    landed = {key: delivery("1", age=age) for key, age in (("a", 1), ("b", 3), ("c", 2))}
    decision = chosen(landed, most=2)
    assert (launched(decision), decision.later) == (["b", "c"], 1)
    assert launched(chosen(landed, most=0)) == launched(chosen(landed, most=-3)) == []


def test_no_more_than_so_many_are_asked_about() -> None:
    """Given a feed whose every run dies at once, the tick says so and ends soon."""
    landed = {f"k{number:05}": delivery("1") for number in range(5 * ASKED)}
    asked: list[str] = []

    def all_of_them(keys: Sequence[str]) -> set[str]:
        asked.extend(keys)
        return set(keys)

    decision = decide(landed, {}, {}, in_work=set(), asked=all_of_them, most=100, now=NOW)
    assert (decision.launch, decision.without_word, len(asked)) == ((), ASKED, ASKED)


@given(
    sizes=st.lists(st.integers(0, 8), min_size=1, max_size=5),
    most=st.integers(1, 6),
    corrected=st.sets(st.integers(0, 30), max_size=8),
    unlucky=st.sets(st.integers(0, 30), max_size=8),
)
@settings(max_examples=60, deadline=None)
def test_whatever_arrives_is_launched_once_and_the_last_state_of_each_is_tried(
    sizes: list[int], most: int, corrected: set[int], unlucky: set[int]
) -> None:
    """Given deliveries that arrive while others run, some corrected, some runs never heard of again."""
    landed: dict[str, Delivery] = {}
    known: dict[str, Tried] = {}
    asked: set[str] = set()
    queue: list[tuple[str, str]] = []
    lost: set[str] = set()
    requests: Counter[str] = Counter()
    number = 0
    for tick in range(5000):
        for _ in range(sizes[tick] if tick < len(sizes) else 0):
            landed[f"k{number}"] = delivery("first", age=100 - tick)
            number += 1
        if tick == len(sizes):
            landed |= {f"k{n}": delivery("second") for n in corrected if n < number}
        decision = decide(
            changed(landed, known), known, {},
            in_work={key for key, _ in queue},
            asked=asked.intersection, most=most - len(queue), now=NOW,
        )  # fmt: skip
        assert len(queue) + len(decision.launch) <= most
        ages = [arrival.newest_change for arrival in decision.launch]
        assert ages == sorted(ages)
        for arrival in decision.launch:
            requests[arrival.run_key] += 1
            asked.add(arrival.run_key)
            queue.append((arrival.key, arrival.run_key))
        # A third of the runs end, the first one at least.
        for key, run_key in queue[: 1 + len(queue) // 3]:
            if int(key[1:]) in unlucky and run_key.endswith(":first:1"):
                lost.add(key)
            else:
                before = known.get(key, Tried(key, None, 0, ""))
                seen = landed[key].fingerprint
                known[key] = Tried(key, seen, before.looked_at + 1, "SUCCESS")
        del queue[: 1 + len(queue) // 3]
        if tick > len(sizes) and not (decision.launch or decision.waiting or queue):
            break
    else:
        raise AssertionError("it does not end")
    assert max(requests.values(), default=1) == 1
    untried = {key for key, one in changed(landed, known).items() if one.fingerprint == "first"}
    assert untried <= lost
    assert all(
        known[key].fingerprint == one.fingerprint
        for key, one in landed.items()
        if key not in untried
    )


@given(keys=st.sets(st.text("abc", min_size=1, max_size=4)), most=st.integers(1, 9))
def test_each_has_its_turn(keys: set[str], most: int) -> None:
    seen: set[str] = set()
    after = ""
    for _ in range(-(-len(keys) // most)):
        some, after = turn(keys, after, most)
        assert len(some) == min(most, len(keys))
        seen |= some
    assert seen == keys


def test_a_turn_goes_on_where_its_last_key_is_gone() -> None:
    assert turn({"a", "b", "c", "d"}, "bb", 2) == ({"c", "d"}, "d")
    assert turn({"a", "b", "c", "d"}, "d", 3) == ({"a", "b", "c"}, "c")
    assert turn({"a", "b"}, "b", 2) == ({"a", "b"}, "")
