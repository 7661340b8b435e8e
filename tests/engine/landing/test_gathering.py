"""Small files are put together by number, size, records and time: each once, none lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from hypothesis import given
from hypothesis import strategies as st

from batch_pipelines.engine.feed_parts.source import Gather
from batch_pipelines.engine.feeds import is_key
from batch_pipelines.engine.landing.gathering import group, key_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batch_pipelines.engine.places.place import LandedFile


@dataclass(frozen=True)
class Named:
    """A file that is only listed."""

    name: str
    size: int = 1
    changed: float = 0.0


def files_of(*files: Named) -> list[LandedFile]:
    return [cast("LandedFile", file) for file in files]


def named(groups: Sequence[Sequence[LandedFile]]) -> list[str]:
    return [" ".join(file.name for file in files) for files in groups]


FIVE = files_of(*(Named(name, size=10, changed=place) for place, name in enumerate("abcde")))


def test_so_many_files_make_a_batch_and_the_rest_waits() -> None:
    rule = Gather(files=2, seconds=60)
    assert named(group(FIVE, rule, now=10)) == ["a b", "c d"]
    assert named(group(FIVE, rule, now=64)) == ["a b", "c d", "e"]
    assert named(group(FIVE, rule, now=10, at_once=True)) == ["a b", "c d", "e"]


def test_no_batch_has_more_bytes_or_records_than_that_unless_one_file_has() -> None:
    assert named(group(FIVE, Gather(bytes=25), now=100)) == ["a b", "c d", "e"]
    assert named(group(FIVE, Gather(bytes=5), now=0)) == ["a", "b", "c", "d"]
    records = {"a": 3, "b": 3, "c": 9, "d": 1, "e": 4}
    assert named(group(FIVE, Gather(records=6), now=0, records=records)) == ["a b", "c"]
    assert named(group(FIVE, Gather(records=6), now=100, records=records)) == ["a b", "c", "d e"]


@given(
    files=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 50)), max_size=40),
    most=st.integers(1, 9),
    limit=st.none() | st.integers(1, 30),
    now=st.integers(50, 100),
)
def test_each_file_is_in_one_batch_at_most_and_none_waits_too_long(
    files: list[tuple[int, int]], most: int, limit: int | None, now: int
) -> None:
    listed = files_of(
        *(
            Named(f"f{n}", size=s, changed=c)
            for n, (s, c) in enumerate(sorted(files, key=lambda f: f[1]))
        )
    )
    groups = group(listed, Gather(files=most, bytes=limit, seconds=20), now=now)
    flat = [file for files in groups for file in files]
    assert flat == listed[: len(flat)]
    assert all(1 <= len(files) <= most for files in groups)
    assert all(
        limit is None or len(files) == 1 or sum(file.size for file in files) <= limit
        for files in groups
    )
    assert all(now - file.changed < 20 for file in listed[len(flat) :])
    keys = [key_of(files) for files in groups]
    assert len(set(keys)) == len(keys)


@given(names=st.lists(st.text(min_size=1, max_size=120), min_size=1, max_size=5, unique=True))
def test_its_key_is_valid_and_of_the_names_alone(names: list[str]) -> None:
    key = key_of(files_of(*map(Named, names)))
    assert is_key(key)
    assert key == key_of(files_of(*(Named(name, size=7, changed=9) for name in names)))
    assert key != key_of(files_of(*map(Named, [*names, "one more"])))


def test_a_key_says_which_file_was_the_first() -> None:
    assert key_of(files_of(Named("till 7/2024-05-01.csv.gz"))).startswith("till-7-2024-05-01+0.")
    assert key_of(files_of(Named("_.csv"), Named("b"))).startswith("files+1.")
