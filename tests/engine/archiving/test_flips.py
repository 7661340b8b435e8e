"""One bit of a bag flipped, anywhere: it is found, and what reads the bag refuses it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from batch_pipelines.engine.archiving.bag import open_bag
from batch_pipelines.engine.archiving.choosing import place_of
from batch_pipelines.engine.archiving.fixity import check_fixity
from batch_pipelines.engine.archiving.rows.export import export_rows
from batch_pipelines.engine.archiving.rows.reading import open_rows
from batch_pipelines.engine.errors import ArchiveError
from batch_pipelines.engine.ledger import archives, files
from tests.support_soak import short_or_long

if TYPE_CHECKING:
    from batch_pipelines.engine.ledger.batches import Batch
    from tests.engine.conftest import MakeSite
    from tests.support_engine import Site

DDL = "CREATE TABLE t (id int PRIMARY KEY, note text, import_batch_id uuid)"
ROWS = "id,note\n" + "".join(f"{n},note {n}\n" for n in range(5_000)) + "x,bad\n"
# Says how a bag is written, and nothing of what is in it: only `archive verify` reads it.
UNREAD = "bagit.txt"


def read_source(site: Site, batch: Batch) -> None:
    with open_bag(site.connection, site.settings, batch.batch_id) as bag:
        for file in files.of_batch(site.connection, batch.batch_id):
            bag.read(file.place_in_bag, lambda _: None)


def read_rows(site: Site, batch: Batch) -> None:
    with open_rows(site.connection, site.settings, batch.batch_id) as rows:
        rows.prove()


@short_or_long("flips", 100, 1_000)
def test_every_flipped_bit_is_found(site18: MakeSite, flips: int) -> None:
    """Given flips in all files of both bags, each is told by the file's name, and stops its reader."""
    site = site18(DDL, thresholds={})
    batch = site.load({"a.csv": ROWS})
    with site.work() as (connection, work):
        export_rows(connection, site.settings, site.feed, batch, work.lease)
    dice = random.Random(20240501)  # noqa: S311  # places, not secrets
    records = archives.of_batch(site.connection, batch.batch_id)
    assert {record.kind for record in records} == {"bag", "rows"}
    missed = []
    for number in range(flips):
        record = records[number % len(records)]
        inside = [path for path in Path(record.place).rglob("*") if path.is_file()]
        # Half of them by bytes, half by files: small ones, such as manifests, have their turn.
        weights = [path.stat().st_size for path in inside] if dice.random() < 0.5 else None
        (path,) = dice.choices(inside, weights)
        name = path.relative_to(record.place).as_posix()
        content = path.read_bytes()
        place = dice.randrange(len(content))
        flipped = content[place] ^ 1 << dice.randrange(8)
        path.chmod(0o644)
        path.write_bytes(content[:place] + bytes([flipped]) + content[place + 1 :])
        archive, bag = place_of(site.settings, record.place)
        found = check_fixity(archive, bag, record.tagmanifest_sha256)
        if f"{name} is changed" not in found.problems:
            missed.append((name, place))
        reads = record.kind == "rows" or name.startswith("data/source") or "/" not in name
        if reads and name != UNREAD:
            with pytest.raises(ArchiveError):
                (read_rows if record.kind == "rows" else read_source)(site, batch)
        path.write_bytes(content)
    assert missed == []
    read_source(site, batch)
    read_rows(site, batch)
