"""One test in two lengths: short with all the others, long under `make soak`."""

from __future__ import annotations

import pytest


def short_or_long(name: str, short: int, long: int) -> pytest.MarkDecorator:
    """Parametrize a test by how often it does what it does.

    Args:
        name: The test's parameter.
        short: How often as one of all tests.
        long: How often under the marker `soak`.

    Returns:
        The decorator.
    """
    return pytest.mark.parametrize(
        name,
        [
            pytest.param(short, id="short"),
            pytest.param(long, id="long", marks=pytest.mark.soak),
        ],
    )
