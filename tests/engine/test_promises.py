"""What the sender promises of a delivery is read from sidecars and a manifest, or refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from batch_pipelines.engine.errors import DeliveryError
from batch_pipelines.engine.landing import find_delivery
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


def test_bytes_that_are_no_text_are_refused_and_not_a_crash(tmp_path: Path) -> None:
    folder = tmp_path / "landing" / "k"
    folder.mkdir(parents=True)
    (folder / "a.csv").write_text("a\n")
    (folder / "a.csv.crc32c").write_bytes(b"\xff\xfe")
    delivery = find_delivery(FEED, "k", tmp_path)
    assert delivery is not None
    with pytest.raises(DeliveryError, match="expected a CRC32C"):
        read_promises(delivery)
