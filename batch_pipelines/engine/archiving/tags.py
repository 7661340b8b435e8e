"""The tag files of a bag: what BagIt (RFC 8493) writes beside the payload, and reading them again.

Not by `bagit.make_bag`: it changes the process's working folder, and where two threads archive at
once, it moves that folder's files into a bag.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping, Sequence
    from pathlib import Path

DATA: Final = "data"
"""Folder of the payload."""
INFO: Final = "bag-info.txt"
PAYLOAD: Final = "manifest-sha256.txt"
"""SHA-256 of each file of the payload."""
SEAL: Final = "tagmanifest-sha256.txt"
"""SHA-256 of the other tag files: it covers all of a bag, and a bag without it is not whole."""
_DECLARATION = "BagIt-Version: 0.97\nTag-File-Character-Encoding: UTF-8\n"
_CR, _LF = "\r", "\n"


def about(batch_id: str, what: str, today: dt.date) -> dict[str, str]:
    """Say what every bag of ours says of itself in `bag-info.txt`.

    Args:
        batch_id: The batch.
        what: What of it is in the bag.
        today: When it is written.

    Returns:
        Values by tag, by the names that RFC 8493 has for them.
    """
    return {
        "Bagging-Date": today.isoformat(),
        "External-Description": what,
        "External-Identifier": batch_id,
        "Source-Organization": "batch-pipelines",
    }


def write_tags(folder: Path, info: Mapping[str, str]) -> str:
    """Write the tag files of a bag whose payload is complete.

    Args:
        folder: The bag.
        info: What `bag-info.txt` says besides the payload's size.

    Returns:
        SHA-256 of the tag manifest, hex, which covers all of the bag.
    """
    payload = sorted(path for path in (folder / DATA).rglob("*") if path.is_file())
    size = sum(path.stat().st_size for path in payload)
    info = dict(sorted({**info, "Payload-Oxum": f"{size}.{len(payload)}"}.items()))
    tags = {
        "bagit.txt": _DECLARATION,
        INFO: "".join(f"{name}: {value}\n" for name, value in info.items()),
        PAYLOAD: _manifest(folder, payload),
    }
    for name, text in tags.items():
        (folder / name).write_text(text, encoding="utf-8")
    seal = _manifest(folder, [folder / name for name in tags])
    (folder / SEAL).write_text(seal, encoding="utf-8")
    return hashlib.sha256(seal.encode()).hexdigest()


def listed(manifest: bytes) -> dict[str, str]:
    """Read a manifest.

    Args:
        manifest: Its bytes.

    Returns:
        SHA-256 in hex by path.

    Raises:
        ValueError: It is none.
    """
    lines = manifest.decode("utf-8").removesuffix(_LF).split(_LF)
    pairs = (line.split("  ", 1) for line in lines)
    return {name.replace("%0D", _CR).replace("%0A", _LF): digest for digest, name in pairs}


def read_info(info: bytes) -> dict[str, str]:
    """Read `bag-info.txt`, as we write it: a line a name."""
    lines = info.decode("utf-8", errors="replace").splitlines()
    return dict(line.split(": ", 1) for line in lines if ": " in line)


def _manifest(folder: Path, paths: Sequence[Path]) -> str:
    lines = []
    for path in paths:
        with path.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        name = path.relative_to(folder).as_posix()
        lines.append(f"{digest}  {name.replace(_CR, '%0D').replace(_LF, '%0A')}\n")
    return "".join(lines)
