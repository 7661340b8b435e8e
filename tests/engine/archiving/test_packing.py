"""How files are packed: any strategy gives back what went in, and nothing is read without its key."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pyrage
import pytest
import zstandard
from pydantic import SecretStr

from batch_pipelines.engine.archiving.keys import Keys, new_key, read_keys
from batch_pipelines.engine.archiving.packing import PackedError, Packing
from batch_pipelines.engine.errors import ArchiveError, SettingsError

if TYPE_CHECKING:
    from pathlib import Path

    from batch_pipelines.engine.feed_parts.archiving import Strategy

CONTENT = b"a,b\n" + b"1,2\n" * 300_000
KEYS = read_keys(SecretStr(new_key()))
NAMES = [
    ("source/a.csv", "copy", False, "source/a.csv"),
    ("source/a.csv", "compress", False, "source/a.csv.zst"),
    ("source/a.csv", "copy", True, "source/a.csv.age"),
    ("source/a.csv.zst", "compress", True, "source/a.csv.zst.zst.age"),
    ("quarantine/files/a.csv", "digests_only", True, "quarantine/files/a.csv.zst.age"),
    ("quarantine/rejects.parquet", "compress", False, "quarantine/rejects.parquet"),
    ("quarantine/rejects.parquet", "compress", True, "quarantine/rejects.parquet.age"),
    ("row_digests/t.parquet", "copy", True, "row_digests/t.parquet.age"),
    ("ledger/import_file.json", "compress", True, "ledger/import_file.json"),
]


def packing(strategy: Strategy = "compress", *, encrypt: bool = False, level: int = 3) -> Packing:
    return Packing(strategy, level, KEYS.newest if encrypt else None, KEYS)


def unpacked(how: Packing, name: str, packed: bytes) -> bytes:
    found: list[bytes] = []
    how.unpack(name, io.BytesIO(packed), found.append)
    return b"".join(found)


@pytest.mark.parametrize(("name", "strategy", "encrypt", "stored"), NAMES)
def test_what_is_packed_unpacks_to_the_same(
    tmp_path: Path, name: str, strategy: Strategy, stored: str, *, encrypt: bool
) -> None:
    how = packing(strategy, encrypt=encrypt)
    origin, target = tmp_path / "origin", tmp_path / "target"
    for content in (b"", b"x", CONTENT):
        origin.write_bytes(content)
        how.pack(name, origin, target)
        assert unpacked(how, name, target.read_bytes()) == content
    assert how.stored(name) == stored
    packed = target.read_bytes()
    assert (b"1,2\n1,2\n" in packed) == (stored == name)
    assert (len(packed) < len(CONTENT) / 100) == (".zst" in stored[len(name) :])
    # And by the tools of others.
    if stored.endswith(".age"):
        packed = pyrage.decrypt(packed, [KEYS.secret(str(KEYS.newest), name)])
    if ".zst" in stored[len(name) :]:
        packed = zstandard.decompress(packed)
    assert packed == CONTENT


def test_a_higher_level_packs_tighter(tmp_path: Path) -> None:
    origin = tmp_path / "origin"
    origin.write_bytes("".join(f"{n * 7919 % 99991},{n}\n" for n in range(50_000)).encode())
    sizes = []
    for level in (1, 12):
        packing(level=level).pack("source/a", origin, tmp_path / "target")
        sizes.append((tmp_path / "target").stat().st_size)
    assert sizes[1] < sizes[0]


@pytest.mark.parametrize(
    ("damage", "encrypt"),
    # Of what is only compressed and cut off, the bag's digests tell.
    [("a byte", False), ("no such format", False), ("a byte", True), ("no such format", True),
     ("its end", True)],
)  # fmt: skip
def test_what_was_changed_or_cut_off_is_not_unpacked(
    tmp_path: Path, damage: str, *, encrypt: bool
) -> None:
    how = packing(encrypt=encrypt)
    (tmp_path / "origin").write_bytes(CONTENT)
    how.pack("source/a", tmp_path / "origin", tmp_path / "target")
    packed = bytearray((tmp_path / "target").read_bytes())
    match damage:
        case "a byte":
            packed[len(packed) // 2] ^= 1
        case "its end":
            del packed[-20:]
        case _:
            packed[:] = b"something else"
    with pytest.raises(PackedError):
        unpacked(how, "source/a", bytes(packed))


def test_what_is_encrypted_opens_with_its_own_key_alone(tmp_path: Path) -> None:
    """Given keys that were changed since, a bag of an older one opens while that is still there."""
    (tmp_path / "origin").write_bytes(CONTENT)
    old = packing(encrypt=True)
    old.pack("source/a", tmp_path / "origin", tmp_path / "target")
    packed = (tmp_path / "target").read_bytes()
    newest = new_key()
    both = read_keys(SecretStr(f"{newest}, {KEYS.secret(str(KEYS.newest), '')}"))
    assert both.newest == read_keys(SecretStr(newest)).newest != KEYS.newest
    assert unpacked(Packing("compress", 3, old.key_id, both), "source/a", packed) == CONTENT
    for keys in (read_keys(SecretStr(newest)), Keys(None, {})):
        with pytest.raises(ArchiveError, match=f"it is encrypted for {old.key_id}"):
            unpacked(Packing("compress", 3, old.key_id, keys), "source/a", packed)


def test_a_key_that_is_none_is_refused_and_not_repeated() -> None:
    with pytest.raises(SettingsError, match="its key 2 of 2 is no secret key of age") as error:
        read_keys(SecretStr(f"{new_key()} AGE-SECRET-KEY-1SECRET"))
    assert "1SECRET" not in str(error.value)
    assert read_keys(None).newest is None
