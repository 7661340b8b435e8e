"""The memory of Arrow columns as numpy arrays, without copying where it can be had without.

What lives here: the layout of Arrow's buffers. What does not: any knowledge of PostgreSQL.
Source: https://arrow.apache.org/docs/format/Columnar.html.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

Mask: TypeAlias = "npt.NDArray[np.bool_]"


def nulls(column: pa.Array) -> Mask:
    """Tell which values are NULL.

    Args:
        column: (n,) values of any type.

    Returns:
        (n,) True where there is none.
    """
    if not column.null_count:
        return np.zeros(len(column), np.bool_)
    return ~_bits(column.buffers()[0], column)


def booleans(column: pa.Array) -> Mask:
    """Unpack a column of booleans.

    Args:
        column: (n,) booleans.

    Returns:
        (n,) the same; anything where NULL.
    """
    return _bits(column.buffers()[1], column)


def fixed(column: pa.Array, dtype: str, each: int = 1) -> npt.NDArray[Any]:
    """View values of a fixed width.

    Args:
        column: (n,) values of `each` times the dtype's width.
        dtype: What numpy calls one part.
        each: Parts of a value.

    Returns:
        (n, each) the parts, read-only; anything where NULL.
    """
    width = each * np.dtype(dtype).itemsize
    parts = np.frombuffer(
        column.buffers()[1], dtype, count=len(column) * each, offset=column.offset * width
    )
    return parts.reshape(-1, each)


def offsets(column: pa.Array) -> npt.NDArray[np.int32]:
    """View where each value of variable length begins.

    Args:
        column: (n,) strings or bytes with 32-bit offsets.

    Returns:
        (n + 1,) places in `data`, the last one being the end; read-only.
    """
    return np.frombuffer(
        column.buffers()[1], np.int32, count=len(column) + 1, offset=column.offset * 4
    )


def data(column: pa.Array) -> npt.NDArray[np.uint8]:
    """View the bytes of values of variable length.

    Args:
        column: Strings or bytes.

    Returns:
        The bytes that `offsets` point into, of other slices too; read-only.
    """
    return np.frombuffer(column.buffers()[2], np.uint8)


def _bits(buffer: pa.Buffer, column: pa.Array) -> Mask:
    first, last = column.offset // 8, -(-(column.offset + len(column)) // 8)
    packed = np.frombuffer(buffer, np.uint8, count=last - first, offset=first)
    skipped = column.offset % 8
    bits = np.unpackbits(packed, count=skipped + len(column), bitorder="little")
    return bits[skipped:].view(np.bool_)
