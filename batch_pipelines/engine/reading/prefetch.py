"""Reading ahead: the next chunk is parsed in a thread of its own while this one is sent.

Arrow, numpy and libpq release Python's lock where they work or wait, so parsing and sending overlap.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

T = TypeVar("T")
_END: Final = object()


def prefetched(items: Iterable[T]) -> Generator[T]:
    """Make each item in another thread while the one before it is used.

    Args:
        items: Made one after the other; nothing is made any more once this generator is closed.

    Yields:
        The items in order; what raises while one is made is raised here in its place.
    """
    iterator = iter(items)
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch") as pool:
        ahead = pool.submit(next, iterator, _END)
        while (item := ahead.result()) is not _END:
            ahead = pool.submit(next, iterator, _END)
            yield item  # type: ignore[misc]  # not the end, so a T
