"""What the sender promises of a delivery is read from sidecars and a manifest, or refused."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_pipelines.engine.errors import DeliveryError
from batch_pipelines.engine.landing.deliveries import find_delivery
from batch_pipelines.engine.promises import Promise, read_promises
from tests.support_engine import feed_of

if TYPE_CHECKING:
    from pathlib import Path

FEED = feed_of({"public.t": "*"}, source={"path": "landing/{batch}/*"})
CRC = 0xE3069283


def promises(root: Path, **files: str) -> dict[str, Promise]:
    """Deliver files (a double underscore is a dot) and read what is promised of them."""
    folder = root / "landing" / "k"
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content, encoding="utf-8")
    delivery = find_delivery(FEED, "k", root)
    assert delivery is not None
    return read_promises(delivery)


def test_without_sidecars_and_manifest_nothing_is_promised(tmp_path: Path) -> None:
    assert promises(tmp_path, a__csv="a\n") == {}


@pytest.mark.parametrize(
    "content",
    ["e3069283", "E3069283\n", "0xe3069283", "e3069283  a.csv\n", "\te3069283 *a.csv"],
)
def test_a_sidecar_begins_with_eight_hex_digits(tmp_path: Path, content: str) -> None:
    found = promises(tmp_path, a__csv="a\n", b__csv="a\n", a__csv__crc32c=content)
    assert found == {"a.csv": Promise(CRC, None, "sidecar")}


@pytest.mark.parametrize(
    "content", ["", "\n", "a.csv", "e306928", "e30692830", "e306928g", "-e306928"]
)
def test_a_sidecar_without_a_checksum_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(DeliveryError, match=r"/a\.csv\.crc32c: expected a CRC32C as 8 hex digits"):
        promises(tmp_path, a__csv="a\n", a__csv__crc32c=content)


def test_a_manifest_may_promise_sizes_and_checksums(tmp_path: Path) -> None:
    manifest = "\ufefffile_name,remark,size,crc32c\na.csv,x,12,e3069283\nb.csv,,,\nc.csv,, 7 ,\n"
    found = promises(tmp_path, a__csv="", b__csv="", c__csv="", manifest__csv=manifest)
    assert found == {
        "a.csv": Promise(CRC, 12, "manifest"),
        "b.csv": Promise(None, None, "manifest"),
        "c.csv": Promise(None, 7, "manifest"),
    }


def test_a_sidecar_adds_to_a_manifest(tmp_path: Path) -> None:
    found = promises(
        tmp_path,
        a__csv="",
        b__csv="",
        a__csv__crc32c="E3069283",
        b__csv__crc32c="e3069283",
        manifest__csv="file_name,size,crc32c\na.csv,12,\nb.csv,,e3069283\n",
    )
    assert found == {"a.csv": Promise(CRC, 12, "sidecar"), "b.csv": Promise(CRC, None, "sidecar")}


def test_a_sidecar_may_not_contradict_the_manifest(tmp_path: Path) -> None:
    with pytest.raises(DeliveryError, match=r"/a\.csv\.crc32c: contradicts manifest\.csv"):
        promises(
            tmp_path,
            a__csv="",
            a__csv__crc32c="00000000",
            manifest__csv="file_name,crc32c\na.csv,e3069283\n",
        )


@pytest.mark.parametrize(
    ("manifest", "problem"),
    [
        pytest.param("", r"manifest\.csv:1: expected a header with file_name", id="empty"),
        pytest.param("name,size\na.csv,1\n", ":1: expected a header with file_name", id="no names"),
        pytest.param("file_name,size\na.csv,1 kB\n", ":2: size must be a number", id="no size"),
        pytest.param("file_name,size\na.csv,-1\n", ":2: size must be a number", id="negative"),
        pytest.param(
            "file_name,crc32c\na.csv,xyz\n", ":2: expected a CRC32C as 8", id="no checksum"
        ),
        pytest.param(
            "file_name\na.csv\nb.csv\n",
            r"b\.csv is listed but was not delivered",
            id="not delivered",
        ),
        pytest.param(
            "file_name\n",
            r"a\.csv was delivered but is not listed\. Deliver what is missing, or correct it",
            id="not listed",
        ),
        pytest.param(
            "file_name\nb.csv\n",
            r"a\.csv was delivered but is not listed; b\.csv is listed but was not delivered",
            id="both",
        ),
        pytest.param("file_name,size\na.csv,1\na.csv,2\n", r":3: a\.csv stands twice", id="twice"),
    ],
)
def test_a_manifest_that_does_not_fit_the_delivery_is_refused(
    tmp_path: Path, manifest: str, problem: str
) -> None:
    with pytest.raises(DeliveryError, match=problem):
        promises(tmp_path, a__csv="a\n", manifest__csv=manifest)


SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_manifest_may_be_json(tmp_path: Path, wrapped: bool) -> None:
    entries = [
        {"file_name": "a.csv", "size": 12, "crc32c": "E3069283", "sha256": SHA256.upper()},
        {"file_name": "b.csv", "remark": {"of": "the sender"}},
        {"file_name": "c.csv", "size": None, "crc32c": "0xe3069283"},
    ]
    content = json.dumps({"version": 2, "files": entries} if wrapped else entries)
    found = promises(tmp_path, a__csv="", b__csv="", c__csv="", manifest__json=content)
    assert found == {
        "a.csv": Promise(CRC, 12, "manifest", {"manifest": {"sha256": SHA256}}),
        "b.csv": Promise(None, None, "manifest"),
        "c.csv": Promise(CRC, None, "manifest"),
    }


def test_sha256_may_stand_in_manifests_and_sidecars(tmp_path: Path) -> None:
    found = promises(
        tmp_path,
        a__csv="",
        a__csv__sha256=f"{SHA256}  a.csv\n",
        manifest__csv=f"file_name,sha256\na.csv,{SHA256.upper()}\n",
    )
    told = {"manifest": {"sha256": SHA256}, "sidecar": {"sha256": SHA256}}
    assert found == {"a.csv": Promise(None, None, "sidecar", told)}


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        pytest.param(
            {"a__csv__sha256": "0" * 64, "manifest__csv": f"file_name,sha256\na.csv,{SHA256}\n"},
            r"/a\.csv\.sha256: contradicts manifest\.csv: sha256 of a\.csv",
            id="sidecar and manifest",
        ),
        pytest.param(
            {
                "manifest__csv": "file_name,size\na.csv,1\n",
                "manifest__json": '[{"file_name": "a.csv", "size": 2}]',
            },
            r"/manifest\.json: files\.0: contradicts manifest\.csv: size of a\.csv is 2 .* 1 in",
            id="two manifests",
        ),
    ],
)
def test_contradictions_name_both(tmp_path: Path, files: dict[str, str], problem: str) -> None:
    with pytest.raises(DeliveryError, match=problem):
        promises(tmp_path, a__csv="a\n", **files)


@pytest.mark.parametrize(
    ("manifest", "problem"),
    [
        ("", r"manifest\.json:1: is no JSON"),
        ('{"files": [}', r"manifest\.json:1: is no JSON"),
        ("[" * 100_000, "is nested too deep"),
        ('[{"file_name": "a.csv", "size": 1, "size": 2}]', "has a key twice"),
        ('"a.csv"', r"manifest\.json: files is missing or not as expected"),
        ("{}", "files is missing"),
        ("[1]", r"files\.0 is missing or not as expected"),
        ('[{"size": 1}]', r"files\.0\.file_name is missing"),
        ('[{"file_name": "a.csv", "size": "1"}]', r"files\.0\.size is missing or not"),
        ('[{"file_name": "a.csv", "size": -1}]', r"files\.0\.size"),
        ('[{"file_name": "a.csv", "size": true}]', r"files\.0\.size"),
        ('[{"file_name": "a.csv", "crc32c": 12345678}]', r"files\.0\.crc32c"),
        ('[{"file_name": "a.csv", "sha256": "12"}]', r"files\.0: expected a SHA-256 as 64 hex"),
        ('[{"file_name": "a.csv"}, {"file_name": "a.csv"}]', r"files\.1: a\.csv stands twice"),
        ("[]", r"a\.csv was delivered but is not listed"),
        ('[{"file_name": "a.csv"}, {"file_name": "b.csv"}]', r"b\.csv is listed but was not"),
    ],
)
def test_a_json_manifest_that_does_not_fit_is_refused(
    tmp_path: Path, manifest: str, problem: str
) -> None:
    with pytest.raises(DeliveryError, match=problem):
        promises(tmp_path, a__csv="a\n", manifest__json=manifest)


@dataclass(frozen=True)
class Listed:
    """What is promised of a file."""

    size: int | None
    crc32c: int | None
    sha256: bytes | None

    @property
    def entry(self) -> dict[str, object]:
        """As manifests have it."""
        crc, sha256 = self.crc32c, self.sha256
        return {
            "size": self.size,
            "crc32c": None if crc is None else f"{crc:08x}",
            "sha256": None if sha256 is None else sha256.hex(),
        }

    def promise(self, source: str = "manifest") -> Promise:
        """What is understood of it."""
        digests = {} if self.sha256 is None else {source: {"sha256": self.sha256.hex()}}
        return Promise(self.crc32c, self.size, source, digests)


LISTED = st.builds(
    Listed,
    st.none() | st.integers(0, 2**63),
    st.none() | st.integers(0, 2**32 - 1),
    st.none() | st.binary(min_size=32, max_size=32),
)
# What CSV has to quote, too; a slash or a NUL no name can have.
NAMES = st.text("abcä ,;\"'.-_", min_size=1, max_size=12).map("f{}.csv".format)


@given(listed=st.dictionaries(NAMES, LISTED, min_size=1, max_size=5), kind=st.sampled_from("cjb"))
@settings(max_examples=60, deadline=None)
def test_whatever_a_manifest_says_is_understood_in_either_form(
    tmp_path_factory: pytest.TempPathFactory, listed: dict[str, Listed], kind: str
) -> None:
    """Given any manifest, as CSV, JSON or both, each file is promised just what it says."""
    root = tmp_path_factory.mktemp("delivery")
    folder = root / "landing" / "k"
    folder.mkdir(parents=True)
    rows = [{"file_name": name, **own.entry} for name, own in listed.items()]
    for row in rows:
        (folder / str(row["file_name"])).touch()
    if kind in "cb":
        with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as writing:
            table = csv.DictWriter(writing, ["file_name", "sha256", "crc32c", "size"])
            table.writeheader()
            table.writerows(rows)
    if kind in "jb":
        (folder / "manifest.json").write_text(json.dumps(rows), encoding="utf-8")
    delivery = find_delivery(FEED, "k", root)
    assert delivery is not None
    assert read_promises(delivery) == {name: own.promise() for name, own in listed.items()}


def test_bytes_that_are_no_text_are_refused_and_not_a_crash(tmp_path: Path) -> None:
    folder = tmp_path / "landing" / "k"
    folder.mkdir(parents=True)
    (folder / "a.csv").write_text("a\n")
    (folder / "a.csv.crc32c").write_bytes(b"\xff\xfe")
    delivery = find_delivery(FEED, "k", tmp_path)
    assert delivery is not None
    with pytest.raises(DeliveryError, match="expected a CRC32C"):
        read_promises(delivery)
