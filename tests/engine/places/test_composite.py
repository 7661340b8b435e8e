"""The composite checksum is that of the parts, however the bytes come by."""

from __future__ import annotations

import crc32c
from hypothesis import given
from hypothesis import strategies as st

from batch_pipelines.engine.places.composite import CompositeCrc32c


@given(parts=st.lists(st.binary(min_size=1, max_size=60), max_size=6), size=st.integers(1, 100))
def test_it_is_the_checksum_of_the_parts_own(parts: list[bytes], size: int) -> None:
    composite = CompositeCrc32c(len(part) for part in parts)
    content = b"".join(parts)
    for place in range(0, len(content), size):
        composite.update(content[place : place + size])
    own = b"".join(crc32c.crc32c(part).to_bytes(4, "big") for part in parts)
    assert composite.value() == crc32c.crc32c(own)


def test_of_a_known_object() -> None:
    # Two parts of which RFC 3720 B.4 has the checksums: 32 x 00 and 32 x FF.
    composite = CompositeCrc32c([32, 32])
    composite.update(bytes(32) + b"\xff" * 32)
    own = bytes.fromhex("8a9136aa62a8ab43")
    assert composite.value() == crc32c.crc32c(own)
    assert composite.value() != crc32c.crc32c(bytes(32) + b"\xff" * 32)
