"""A disk that is really full in the middle of a file: it is said; with room the next run ends right."""

from __future__ import annotations

import random
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from batch_pipelines.engine.errors import BatchError
from batch_pipelines.engine.ledger import archives
from batch_pipelines.engine.ledger.stages import STAGES
from tests.support_retention import POLICY, retain, with_rules

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.engine.conftest import MakeSite

DDL = "CREATE TABLE t (id int PRIMARY KEY, note text, import_batch_id uuid)"
ROWS = 6_000
_SMALL, _ROOMY = "300k", "64m"


def delivery() -> dict[str, str]:
    """Make one of a megabyte that cannot be packed below the half of it."""
    dice = random.Random(28)  # noqa: S311  # text, not secrets
    lines = (f"{n},{dice.randbytes(80).hex()}\n" for n in range(ROWS))
    return {"a.csv": "id,note\n" + "".join(lines)}


@contextmanager
def disk(folder: Path) -> Iterator[None]:
    """Have a folder stand on a small disk of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    if _mount("-t", "tmpfs", "-o", f"size={_SMALL}", "tmpfs", str(folder)):
        pytest.skip("only root may mount a small disk")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)  # ours


def make_room(folder: Path) -> None:
    """Make a disk larger."""
    assert _mount("-o", f"remount,size={_ROOMY}", str(folder)) == 0


def _mount(*arguments: str) -> int:
    try:
        ran = subprocess.run(["mount", *arguments], check=False, capture_output=True)  # ours
    except FileNotFoundError:
        return 1
    return ran.returncode


def test_staging_is_full(site18: MakeSite) -> None:
    site = site18(DDL, thresholds={})
    site.deliver(delivery())
    with disk(site.settings.staging):
        with pytest.raises((BatchError, OSError), match="No space left on device"):
            site.run()
        (batch,) = site.history()
        assert batch.status == "FAILED"
        assert "No space left on device" in str(batch.error_details)
        assert site.rows() == []
        make_room(site.settings.staging)
        assert site.run().status == "SUCCESS"
        assert len(site.rows()) == ROWS


def test_the_archive_is_full(site18: MakeSite) -> None:
    site = site18(DDL, thresholds={})
    site.deliver(delivery())
    archive = Path(site.settings.archive_address)
    with disk(archive):
        with pytest.raises((BatchError, OSError), match="No space left on device"):
            site.run()
        (batch,) = site.history()
        # What is published stays, and its source is kept until there is a bag of it.
        assert (batch.status, len(site.rows())) == ("SUCCESS", ROWS)
        assert (site.settings.staging / batch.batch_id / "source" / "a.csv").is_file()
        assert [path for path in archive.rglob("*") if path.is_file()] == []
        make_room(archive)
        site.run(stages=STAGES[-1:])
        assert archives.bag(site.connection, batch.batch_id) is not None


def test_there_is_no_room_for_the_rows(site18: MakeSite) -> None:
    site = site18(DDL, thresholds={})
    site.feed = with_rules(site.feed, rows=POLICY)
    archive = Path(site.settings.archive_address)
    batch = site.load(delivery())
    kept = archive.with_name("kept")
    archive.rename(kept)
    with disk(archive):
        before = site.rows()
        (chunk,) = retain(site).chunks
        assert chunk.state == "FAILED"
        assert "No space left on device" in str(chunk.reason)
        assert site.rows() == before
        assert archives.rows(site.connection, batch.batch_id) is None
        assert [path for path in archive.rglob("*") if path.is_file()] == []
        make_room(archive)
        (chunk,) = retain(site).chunks
        assert (chunk.state, site.rows()) == ("DELETED", [])
