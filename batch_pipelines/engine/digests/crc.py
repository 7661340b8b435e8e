"""CRC32C as linear algebra, for many messages at once.

What lives here: the arithmetic. What does not: which bytes a row consists of (`fields`, `rows`).

A message is a polynomial over GF(2), its bits the coefficients. Its CRC is the message times x^32,
modulo a polynomial P of degree 32. Without the customary inversions at start and end such a
remainder (here: a *state*) is linear:

    state(A xor B)  = state(A) xor state(B)                for messages of equal length
    state(A then B) = shift(state(A), len B) xor state(B)

where `shift(s, n)`, what n zero bytes do to s, is s * x^(8n) modulo P. What follows carries all the
rest:

* A value at a known distance (in bytes) from the end of its message contributes an amount that
  depends on nothing else. Contributions come out of tables and are xored in any order.
* Leading zeros contribute nothing: a short string is a big-endian integer.
* x has order 2^31 - 1 modulo P: bytes are taken away as they are added, shift(shift(s, n), -n) = s.
* A state is worth four bytes: the message of its own bytes, lowest first, has the state s * x^32.
  So `shift(s, n)` is the contribution of those four bytes at the distance n - 4, and needs no other
  tables.

A state is bit-reflected, as in every implementation of CRC32C: bit 31 stands for x^0, bit 0 for
x^31; and of each byte of the message, bit 0 has the highest power. Sources: RFC 3720, 12.1 (the
polynomial and the order of bits); zlib's crc32_combine (the shift).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import crc32c
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy.typing as npt

States: TypeAlias = "npt.NDArray[np.uint32]"
"""One state a message."""

Integers: TypeAlias = "npt.NDArray[np.signedinteger[Any]]"
"""One value a message, as many bytes on the wire as in memory (int8 to int64)."""

ALL_ONES: Final = 0xFFFFFFFF
"""The state that CRC32C starts from; the last state xored with it is the CRC."""

_REFLECTED_POLYNOMIAL: Final = 0x82F63B78
_X_TO_THE_0: Final = 0x80000000
_ORDER: Final = (1 << 31) - 1  # P = (x + 1) * Q, Q primitive of degree 31

# Integers are looked up in base 4096: a table then takes 16 KB and stays in the first-level cache.
# Measured on an AMD EPYC, 12 bits beat 8 (more look-ups) and 16 (tables of 256 KB, slow to build
# and to reach).
_DIGIT_BITS: Final = 12
_TABLES: Final = 1024  # 16 MB when all are used; a batch of flights uses 99

# Values in a narrow range need one look-up, in a table over the range; its indexes may take 512 KB.
_WIDEST_RANGE: Final = 1 << 16

# Values, indexes and states of so many messages stay in the second-level cache together.
_BLOCK: Final = 1 << 14


def state_of(message: bytes, start: int = 0) -> int:
    """Give the state after a message.

    Args:
        message: The bytes.
        start: The state before the first byte; `ALL_ONES` is where CRC32C starts.

    Returns:
        The state, without the inversion that CRC32C ends with.
    """
    return crc32c.crc32c(message, start ^ ALL_ONES) ^ ALL_ONES


def states_of(messages: Iterable[memoryview]) -> States:
    """Give the state after each of many messages, from state 0.

    Args:
        messages: The bytes of each.

    Returns:
        (n,) the states.
    """
    crcs = [crc32c.crc32c(message, ALL_ONES) for message in messages]
    return np.array(crcs, np.uint32) ^ np.uint32(ALL_ONES)


def joined(first: int, second: int, length: int) -> int:
    """Give the CRC32C of two messages one after the other; the inversions cancel out.

    Args:
        first: CRC32C of the first message.
        second: CRC32C of the second.
        length: Bytes of the second.

    Returns:
        CRC32C of both together.
    """
    return int(shift(np.array([first], np.uint32), length)[0]) ^ second


def add_integers(states: States, values: Integers, distance: int, epoch: int = 0) -> None:
    """Xor into each message's state the contribution of a big-endian integer.

    Args:
        states: (n,) states, changed in place.
        values: (n,) integers.
        distance: Bytes of the message that follow the integer.
        epoch: What to subtract from each value before it is sent; wraps around like the integer.
    """
    if not len(values):
        return
    low, high = int(values.min()), int(values.max())
    if high - low >= min(len(values), _WIDEST_RANGE):
        _add_digits(states, values - np.array(epoch, values.dtype) if epoch else values, distance)
        return
    table = np.zeros(high - low + 1, np.uint32)
    offsets = np.arange(len(table)).astype(values.dtype)
    _add_digits(
        table, offsets + np.array([low], values.dtype) - np.array([epoch], values.dtype), distance
    )
    for block in _blocks(len(values)):
        index = np.subtract(values[block], low, dtype=np.intp, casting="unsafe")
        states[block] ^= table.take(index)


def shift(states: States, amount: int) -> States:
    """Move every state by the same number of bytes.

    Args:
        states: (n,) states.
        amount: Zero bytes to append to each message; a negative number takes bytes away.

    Returns:
        (n,) the new states.
    """
    moved = np.zeros_like(states)
    if len(states):
        _add_digits(moved, states.byteswap().view(np.int32), amount - states.itemsize)
    return moved


def shift_each(states: States, amounts: npt.NDArray[np.int32]) -> States:
    """Move every state by its own number of bytes.

    Args:
        states: (n,) states.
        amounts: (n,) zero bytes to append to each message; a negative number takes bytes away.

    Returns:
        (n,) the new states.
    """
    if not len(states):
        return states
    if amounts.min() == amounts.max():
        return shift(states, int(amounts[0]))
    moved = states.copy()
    for direction in (1, -1):
        remaining = np.maximum(amounts * np.int32(direction), 0)
        # In powers of two, so that columns of any lengths together need no more than 62 shifts'
        # tables.
        for bit in range(int(remaining.max()).bit_length()):
            rows = np.flatnonzero(remaining & (1 << bit))
            moved[rows] = shift(moved[rows], direction << bit)
    return moved


def _add_digits(states: States, values: Integers, distance: int) -> None:
    """Xor in integers' contributions (n > 0): one look-up a digit, none where all have the same."""
    varying = int(np.bitwise_or.reduce(values)) ^ int(np.bitwise_and.reduce(values))
    constant = 0
    looked_up = []
    for low_bit in range(0, 8 * values.itemsize, _DIGIT_BITS):
        mask = (1 << min(_DIGIT_BITS, 8 * values.itemsize - low_bit)) - 1
        table = _digit_table(distance, low_bit)
        if varying >> low_bit & mask:
            looked_up.append((low_bit, mask, table))
        else:
            constant ^= int(table[int(values[0]) >> low_bit & mask])
    for block in _blocks(len(values)):
        part = states[block]
        part ^= np.uint32(constant)
        for low_bit, mask, table in looked_up:
            index = np.right_shift(values[block], low_bit, dtype=np.intp)
            index &= mask
            part ^= table.take(index)


@functools.lru_cache(maxsize=_TABLES)
def _digit_table(distance: int, low_bit: int) -> States:
    """Give the contribution of each digit of an integer.

    Args:
        distance: Bytes of the message that follow the integer.
        low_bit: Where in the integer the digit begins.

    Returns:
        (4096,) the contribution of the integer `digit << low_bit`.
    """
    table = np.zeros(1, np.uint32)
    for bit in range(low_bit, low_bit + _DIGIT_BITS):
        power = 8 * (distance + bit // 8) + (7 - bit % 8) + 32
        table = np.concatenate([table, table ^ np.uint32(_power_of_x(power % _ORDER))])
    table.setflags(write=False)
    return table


@functools.lru_cache(maxsize=1 << 14)
def _power_of_x(exponent: int) -> int:
    """Give x^exponent modulo P, as a state."""
    if exponent == 0:
        return _X_TO_THE_0
    if exponent % 8:  # one product for the eight bits of a byte
        return _times_x(_power_of_x(exponent - 1))
    root = _power_of_x(exponent // 2)
    return _product(root, root)


def _product(one: int, other: int) -> int:
    total = 0
    while one:
        if one & _X_TO_THE_0:
            total ^= other
        one = one << 1 & ALL_ONES
        other = _times_x(other)
    return total


def _times_x(state: int) -> int:
    return state >> 1 ^ (_REFLECTED_POLYNOMIAL if state & 1 else 0)


def _blocks(count: int) -> Iterator[slice]:
    return (slice(start, start + _BLOCK) for start in range(0, count, _BLOCK))
