"""Evidence: what was kept of a batch's rows when it was loaded, believed only once it is proven itself.

The row digests of a batch stand in its bag, or in staging until it is archived. In a bag they are
covered by SHA-256 up to the one in the ledger; in both places they must add up to the ledger's digests.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batch_pipelines.engine.digests import RowDigest
from batch_pipelines.engine.errors import ArchiveError
from batch_pipelines.engine.ledger import proofs, rejects

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batch_pipelines.engine.ledger.proofs import ArchiveRecord
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.settings import Settings

_DATA, _DIGESTS = "data", "row_digests"
_CR, _LF = "\r", "\n"
_TAGS, _PAYLOAD = "tagmanifest-sha256.txt", "manifest-sha256.txt"


@dataclass(frozen=True)
class Evidence:
    """Where the evidence of a batch stands.

    Attributes:
        folder: The folder with `source` and `row_digests`.
        archive: Its bag; None where it stands in staging.
    """

    folder: Path
    archive: ArchiveRecord | None


def evidence_of(connection: Connection, settings: Settings, batch_id: str) -> Evidence:
    """Find the evidence of a batch.

    Args:
        connection: A connection.
        settings: Say where staging is.
        batch_id: The batch.

    Returns:
        The evidence, not looked at yet.

    Raises:
        ArchiveError: It is neither in a bag nor in staging.
    """
    archive = proofs.archive(connection, batch_id)
    staged = settings.staging / batch_id
    # A replay that is not archived yet has the newest of it in staging.
    if (staged / _DIGESTS).is_dir():
        return Evidence(staged, None)
    if archive is None:
        message = f"Batch {batch_id} has no bag, and staging has nothing of it."
        raise ArchiveError(message)
    return Evidence(Path(archive.bag_path) / _DATA, archive)


def row_digests(
    connection: Connection, evidence: Evidence, batch_id: str, full_name: str
) -> tuple[Path, ...]:
    """Find the files of a table's row digests, and prove that they are what was written.

    Args:
        connection: A connection.
        evidence: Of the batch.
        batch_id: The batch.
        full_name: The table, as in `public.flights`.

    Returns:
        The Parquet files: of the load, and of each replay that loaded more.

    Raises:
        ArchiveError: They are gone, or not what the ledger says.
    """
    folder = evidence.folder / _DIGESTS
    # One that was not committed may have left a file, too.
    runs = rejects.replays(connection, batch_id)
    replayed = [folder / f"{full_name}.replay-{run}.parquet" for run in runs]
    paths = [folder / f"{full_name}.parquet", *(path for path in replayed if path.exists())]
    wanted = _of_ledger(connection, batch_id, full_name)
    try:
        if evidence.archive is not None:
            _prove_sealed(Path(evidence.archive.bag_path), evidence.archive, paths)
        found = _of_files(paths)
    except (OSError, pa.ArrowException, ValueError, KeyError):
        found = None
    if found != wanted:
        message = (
            f"{folder}: the row digests of {full_name} are gone or are not those of the ledger. Restore "
            "the folder from a backup."
        )
        raise ArchiveError(message)
    return tuple(paths)


def _prove_sealed(bag: Path, archive: ArchiveRecord, paths: list[Path]) -> None:
    """Hold files of a bag against its manifests; raise where they are not what is listed."""
    listed = sealed(bag, archive)
    for path in paths:
        name = path.relative_to(bag).as_posix()
        if sha256(path) != listed[name]:
            raise ValueError(name)


def sealed(bag: Path, archive: ArchiveRecord) -> Mapping[str, str]:
    """Follow the SHA-256 of a bag's manifests up to the one in the ledger.

    Args:
        bag: The bag.
        archive: What the ledger has of it.

    Returns:
        The SHA-256 of each file of its payload, by its path in the bag.

    Raises:
        ValueError: A manifest is not what was written.
        KeyError: One is not listed.
        OSError: One is gone.
    """
    if sha256(bag / _TAGS) != archive.tagmanifest_sha256:
        raise ValueError(_TAGS)
    if sha256(bag / _PAYLOAD) != _listed(bag / _TAGS)[_PAYLOAD]:
        raise ValueError(_PAYLOAD)
    return _listed(bag / _PAYLOAD)


def _listed(manifest: Path) -> Mapping[str, str]:
    lines = (
        line.split("  ", 1) for line in manifest.read_text(encoding="utf-8").split(_LF) if line
    )
    return {name.replace("%0D", _CR).replace("%0A", _LF): digest for digest, name in lines}


def sha256(path: Path) -> str:
    """Compute the SHA-256 of a file, in hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _of_ledger(connection: Connection, batch_id: str, full_name: str) -> Mapping[str, RowDigest]:
    """Add up the ledger's digests by file."""
    found = defaultdict[str, RowDigest](RowDigest.zero)
    for chunk in proofs.chunks(connection, batch_id, full_name):
        found[chunk.file_name] += RowDigest(chunk.records, chunk.digest_sum, chunk.digest_moment)
    return dict(found)


def _of_files(paths: list[Path]) -> Mapping[str, RowDigest]:
    """Add up the digests in the files by the source file they are of."""
    found = defaultdict[str, RowDigest](RowDigest.zero)
    for path in paths:
        with pq.ParquetFile(path) as file:
            for rows in file.iter_batches():
                names, crcs = rows.column(0), rows.column(rows.num_columns - 1)
                for name in pc.unique(names).to_pylist():
                    own = crcs.filter(pc.equal(names, name))
                    found[name] += RowDigest.of(own.to_numpy())
    return dict(found)
