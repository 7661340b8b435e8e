"""Reading ahead keeps order, errors and ends."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from batch_pipelines.engine.reading.prefetch import prefetched

if TYPE_CHECKING:
    from collections.abc import Iterator


def _threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("prefetch")]


def test_all_items_arrive_in_order() -> None:
    assert list(prefetched(range(1000))) == list(range(1000))
    assert not _threads()


def test_items_are_made_in_another_thread() -> None:
    def items() -> Iterator[int | None]:
        yield threading.current_thread().ident

    assert list(prefetched(items())) != [threading.current_thread().ident]


def test_an_error_arrives_after_what_came_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError(28, "No space left on device")

    taken: list[int] = []
    with pytest.raises(OSError, match="No space left"):
        taken.extend(prefetched(items()))
    reader = prefetched(items())
    assert next(reader) == 1
    with pytest.raises(OSError, match="No space left"):
        next(reader)
    assert not _threads()


def test_who_stops_taking_ends_the_making() -> None:
    made = []

    def items() -> Iterator[int]:
        for number in range(10**9):
            made.append(number)
            yield number

    reader = prefetched(items())
    assert next(reader) == 0
    reader.close()
    assert not _threads()
    assert len(made) < 10
