"""Columns of numeric(precision, scale): a head of four int16, then int16 digits in base 10000.

The digits are aligned with the decimal point, and groups of zeros at either end are not sent, so
that the length depends on the value: 12.50 is sent as 12 5000, 1200.00 as 1200. Source:
numeric_send and set_var_from_num in src/backend/utils/adt/numeric.c.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from batch_pipelines.engine.digests import columns, crc
from batch_pipelines.engine.digests.lengths import Lengths

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

    from batch_pipelines.engine.digests.columns import Mask
    from batch_pipelines.engine.digests.lengths import Sizes

Limbs: TypeAlias = "list[npt.NDArray[np.uint64]]"
"""Integers >= 0, (n,) a limb, the most significant first: one limb of 64 bits or four of 32."""

_GROUP_DIGITS: Final = 4  # decimal digits of one digit in base 10000, here called a group
_GROUP_BYTES: Final = 2
_HEAD_BYTES: Final = 8  # ndigits, weight, sign, dscale
_NEGATIVE: Final = 0x4000
_INT64_DIGITS: Final = 18
_32: Final = np.uint64(32)
_LOW_32: Final = np.uint64(0xFFFFFFFF)


@dataclass(frozen=True, slots=True)
class Numeric:
    """A column of decimal numbers.

    Attributes:
        lengths: The length fields.
        null: (n,) whether there is no value.
        negative: (n,) whether the value is below zero.
        groups: (n,) each: all groups a value can have, the least significant first; 0 where NULL.
        end: (n,) the first of the groups that are sent; 0 for the value zero.
        top: (n,) the one after the last of them; 0 for the value zero.
        fraction_groups: How many of the groups are behind the decimal point.
        scale: Decimal digits behind it.
    """

    lengths: Lengths
    null: Mask
    negative: Mask
    groups: tuple[npt.NDArray[np.int16], ...]
    end: Sizes
    top: Sizes
    fraction_groups: int
    scale: int

    @classmethod
    def of(cls, column: pa.Array, null: Mask) -> Numeric:
        """Take the values apart into groups.

        Args:
            column: (n,) decimal128.
            null: (n,) whether there is no value.

        Returns:
            The column, measured.
        """
        precision, scale = column.type.precision, column.type.scale
        low, high = columns.fixed(column, "i8", 2).T
        groups = _groups(_magnitude(low, high, precision), precision, scale)
        for group in groups:
            group[null] = 0
        top, end = np.zeros(len(null), np.int32), np.zeros(len(null), np.int32)
        for place, group in enumerate(groups):
            top[group != 0] = place + 1
        for place, group in reversed([*enumerate(groups)]):
            end[group != 0] = place
        sizes = np.where(null, np.int32(0), _HEAD_BYTES + _GROUP_BYTES * (top - end))
        fraction_groups = -(-scale // _GROUP_DIGITS)
        lengths = Lengths.varying(sizes, null)
        return cls(lengths, null, high < 0, tuple(groups), end, top, fraction_groups, scale)

    def add(self, states: crc.States, distance: int) -> None:
        """Xor in the values' contribution; see `fields.Field`."""
        parts = np.zeros_like(states)
        for place, group in enumerate(self.groups):
            crc.add_integers(parts, group, distance + place * _GROUP_BYTES)
        # So far the zeros at the end count as sent.
        parts = crc.shift_each(parts, -_GROUP_BYTES * self.end)
        heads = _heads(len(self.groups), self.fraction_groups, self.scale, distance)
        parts ^= heads[self.negative.view(np.int8), self.end, self.top]
        parts[self.null] = 0
        states ^= parts


def _magnitude(low: npt.NDArray[np.int64], high: npt.NDArray[np.int64], precision: int) -> Limbs:
    """Drop the sign of 128-bit integers in two's complement."""
    if precision <= _INT64_DIGITS:
        return [np.abs(low).view(np.uint64)]
    sign = (high >> 63).view(np.uint64)  # all bits set for the values below zero
    low_limb, high_limb = low.view(np.uint64) ^ sign, high.view(np.uint64) ^ sign
    low_limb -= sign  # plus one; it carries over where the low half becomes zero
    high_limb += (low_limb == 0) & (sign != 0)
    return [half for limb in (high_limb, low_limb) for half in (limb >> _32, limb & _LOW_32)]


def _groups(limbs: Limbs, precision: int, scale: int) -> list[npt.NDArray[np.int16]]:
    groups = []
    partial = scale % _GROUP_DIGITS
    if partial:
        groups.append(_divide(limbs, 10**partial) * np.uint64(10 ** (_GROUP_DIGITS - partial)))
    whole = scale // _GROUP_DIGITS - (scale - precision) // _GROUP_DIGITS
    groups.extend(_divide(limbs, 10**_GROUP_DIGITS) for _ in range(whole))
    return [group.astype(np.int16) for group in groups]


def _divide(limbs: Limbs, divisor: int) -> npt.NDArray[np.uint64]:
    """Divide in place, as on paper, and return the remainder."""
    remainder = np.zeros_like(limbs[0])
    for place, limb in enumerate(limbs):
        dividend = remainder << _32 | limb
        limbs[place] = dividend // np.uint64(divisor)
        remainder = dividend - limbs[place] * np.uint64(divisor)
    return remainder


@functools.lru_cache(maxsize=256)
def _heads(groups: int, fraction_groups: int, scale: int, distance: int) -> crc.States:
    """Give the contribution of every head that a value can have.

    Args:
        groups: All groups a value can have.
        fraction_groups: How many of them are behind the decimal point.
        scale: Decimal digits behind it.
        distance: Bytes of the row that follow the column.

    Returns:
        (2, groups + 1, groups + 1): whether negative; first group that is sent; the one after the
            last.
    """
    negative, end, top = np.indices((2, groups + 1, groups + 1))
    sent = np.maximum(top - end, 0)
    weight = np.where(top, top - fraction_groups - 1, 0)
    heads = sent << 48 | (weight & 0xFFFF) << 32 | negative * _NEGATIVE << 16 | scale
    contributions = np.zeros(heads.size, np.uint32)
    crc.add_integers(contributions, heads.ravel(), distance)
    follows = (sent * _GROUP_BYTES).astype(np.int32).ravel()
    return crc.shift_each(contributions, follows).reshape(heads.shape)
