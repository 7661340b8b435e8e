"""Buckets as places: what is listed, how an object is read, and what is said when that fails."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import pytest

from batch_pipelines.engine.errors import DeliveryError
from batch_pipelines.engine.landing.deliveries import find_delivery, find_keys, scan
from batch_pipelines.engine.places import s3_object
from batch_pipelines.engine.places.place import StoredChecksum
from batch_pipelines.engine.places.s3_object import BucketFile
from tests.support_engine import feed_of
from tests.support_s3 import (
    KEY_ID,
    SECRET,
    Answer,
    Request,
    Store,
    clock_ahead,
    encoded,
    refusal,
    tell_parts,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.places.place import LandedFile

MEGABYTE = 1_000_000
LEAST_PART = 5 * 1024 * 1024


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_object, "PAUSE_SECONDS", 0)


def feed_in(store: Store, path: str = "in/{batch}/*.csv") -> Feed:
    return feed_of({"public.t": "*"}, source={"path": f"s3://{store.bucket}/{path}"})


def listed(store: Store, root: Path, name: str = "a.csv") -> LandedFile:
    """Give a file of the delivery `k` as it is now."""
    delivery = find_delivery(feed_in(store), "k", root)
    assert delivery is not None
    return next(file for file in delivery.data if file.name == name)


def content(file: LandedFile, size: int = 100_000) -> bytes:
    with file.open() as reading:
        return b"".join(iter(lambda: reading.read(size), b""))


def stored(file: LandedFile) -> StoredChecksum | None:
    with file.open() as reading:
        return reading.stored


# What is listed


def test_a_delivery_is_the_objects_below_its_key(store: Store, tmp_path: Path) -> None:
    for key in ("k/b.csv", "k/a.csv", "k/notes.txt", "k/deeper/c.csv", "k/", "kk/d.csv"):
        store.put(f"in/{key}", key)
    store.put("in/k/manifest.csv", "file_name\n")
    store.put("in/k/b.csv.crc32c", "00000000")
    store.put("in/k/gone.csv.crc32c", "00000000")
    delivery = find_delivery(feed_in(store), "k", tmp_path)
    assert delivery is not None
    assert [file.name for file in delivery.data] == ["a.csv", "b.csv"]
    assert [file.name for file in delivery.control] == ["b.csv.crc32c", "manifest.csv"]
    assert str(delivery.data[0]) == f"s3://{store.bucket}/in/k/a.csv"
    assert find_keys(feed_in(store), tmp_path) == ["k", "kk"]
    assert find_delivery(feed_in(store), "none", tmp_path) is None


def test_a_delivery_may_be_one_object_at_the_top_of_the_bucket(
    store: Store, tmp_path: Path
) -> None:
    for key in ("t_k.csv", "t_k.csv.crc32c", "t_l.csv", "u_k.csv", "/t_m.csv", "x/t_n.csv"):
        store.put(key, key)
    feed = feed_in(store, "t_{batch}.csv")
    landed = scan(feed, tmp_path)
    assert list(landed) == ["k", "l"]
    assert [file.name for file in landed["k"].control] == ["t_k.csv.crc32c"]
    delivery = find_delivery(feed, "k", tmp_path)
    assert delivery is not None
    assert delivery.fingerprint == landed["k"].fingerprint


def test_keys_that_are_no_partition_keys_are_passed_over(store: Store, tmp_path: Path) -> None:
    for key in ("2013-01", ".hidden", "a b", "a..b", "ü", "x" * 101, "a,b", "..", "", "a=1+2"):
        store.put(f"in/{key}/a.csv", key)
    assert find_keys(feed_in(store), tmp_path) == ["2013-01", "a=1+2"]
    with pytest.raises(DeliveryError, match="not a partition key"):
        find_delivery(feed_in(store), "../in", tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "a b.csv",
        "a+b.csv",
        "a%20b.csv",
        "größe-数.csv",
        "a#b?c&d=e.csv",
        "a'b\"c<d>.csv",
    ],
)
def test_names_of_every_kind_are_listed_and_read(store: Store, tmp_path: Path, name: str) -> None:
    store.put(f"in/k/{name}", f"content of {name}")
    assert content(listed(store, tmp_path, name)) == f"content of {name}".encode()


@pytest.mark.parametrize("name", ["..", ".", "a\0b", "x" * 256, "ü" * 128])
def test_a_name_that_no_file_can_have_is_refused(store: Store, name: str) -> None:
    # Put by hand: the server would itself take some of these keys for others.
    file = BucketFile(store.client, store.bucket, f"in/k/{name}", 1, "etag", 0.0)
    with pytest.raises(DeliveryError, match="no file can have that name"):
        content(file)


def test_a_thousand_objects_take_one_request_and_a_key_its_own_alone(
    store: Store, tmp_path: Path
) -> None:
    """Given 1,050 waiting objects, all are listed by two requests, and one of them by one."""
    names = [f"in/day-{number:04}/a.csv" for number in range(1050)]
    store.put_many(names)
    landed = scan(feed_in(store), tmp_path)
    assert [f"in/{key}/a.csv" for key in landed] == names
    assert len(store.requests) == 2

    store.requests.clear()
    delivery = find_delivery(feed_in(store), "day-0700", tmp_path)
    assert delivery is not None
    assert delivery.fingerprint == landed["day-0700"].fingerprint
    (request,) = store.requests
    assert "prefix=in%2Fday-0700%2F&delimiter=%2F" in request.path

    # Half a listing is none.
    store.meddle = lambda request, answer: (
        refusal(403, "AccessDenied") if "continuation-token" in request.path else answer
    )
    with pytest.raises(DeliveryError, match="the store denies access"):
        scan(feed_in(store), tmp_path)


def test_of_many_single_objects_the_wanted_one_is_asked_for(store: Store, tmp_path: Path) -> None:
    for day in range(3):
        store.put(f"in/t_{day}.csv", "x")
    assert find_delivery(feed_in(store, "in/t_{batch}.csv"), "1", tmp_path) is not None
    prefixes = sorted(request.path.split("prefix=")[1].split("&")[0] for request in store.requests)
    assert prefixes == ["in%2Fmanifest.csv", "in%2Fmanifest.json", "in%2Ft_1.csv"]


@pytest.mark.parametrize("change", ["content", "name", "sidecar", "manifest"])
def test_the_fingerprint_changes_with_any_object(store: Store, tmp_path: Path, change: str) -> None:
    store.put("in/k/a.csv", "as it was")
    feed = feed_in(store)
    before = scan(feed, tmp_path)["k"].fingerprint
    match change:
        case "content":
            store.put("in/k/a.csv", "as it is!")
        case "name":
            store.put("in/k/b.csv", "as it was")
            store.client.delete_object(Bucket=store.bucket, Key="in/k/a.csv")
        case "sidecar":
            store.put("in/k/a.csv.crc32c", "00000000")
        case "manifest":
            store.put("in/k/manifest.csv", "file_name\n")
    assert scan(feed, tmp_path)["k"].fingerprint != before


def test_the_same_content_put_again_is_the_same_delivery(store: Store, tmp_path: Path) -> None:
    store.put("in/k/a.csv", "as it was")
    first = scan(feed_in(store), tmp_path)["k"]
    time.sleep(1.1)
    store.put("in/k/a.csv", "as it was")
    again = scan(feed_in(store), tmp_path)["k"]
    assert again.fingerprint == first.fingerprint
    assert again.newest_change > first.newest_change


def test_an_object_is_as_old_as_the_stores_clock_says(store: Store, tmp_path: Path) -> None:
    """Given a store whose clock is not ours, an object is as old as it is by the store's."""
    store.put("in/k/a.csv", "a")
    now = time.time()
    assert abs(scan(feed_in(store), tmp_path)["k"].newest_change - now) < 30
    store.meddle = clock_ahead(3600)
    assert abs(scan(feed_in(store), tmp_path)["k"].newest_change - (now - 3600)) < 30


# How an object is read


def cut(after: int, times: int = 1000) -> Callable[[Request, Answer], Answer]:
    """Make a meddler that cuts so many answers with an object's bytes."""
    left = [times]

    def meddle(request: Request, answer: Answer) -> Answer:
        if request.is_read and left[0]:
            left[0] -= 1
            return Answer(answer.status, answer.headers, answer.body[:after])
        return answer

    return meddle


def test_an_object_is_read_by_one_request_for_the_state_that_was_listed(
    store: Store, tmp_path: Path
) -> None:
    body = bytes(range(256)) * 1000
    store.put("in/k/a.csv", body)
    file = listed(store, tmp_path)
    store.requests.clear()
    assert content(file) == body
    (request,) = store.requests
    (etag,) = file.state
    assert request.headers["if-match"] == f'"{etag}"'


def test_an_empty_object_is_empty(store: Store, tmp_path: Path) -> None:
    store.put("in/k/a.csv", b"")
    assert content(listed(store, tmp_path)) == b""


@pytest.mark.parametrize("size", [1000, 100_000, 10 * MEGABYTE])
def test_a_transfer_that_breaks_is_gone_on_with(store: Store, tmp_path: Path, size: int) -> None:
    body = bytes(range(256)) * 1000
    store.put("in/k/a.csv", body)
    file = listed(store, tmp_path)
    store.requests.clear()
    store.meddle = cut(after=70_000, times=2)
    assert content(file, size) == body
    ranges = [request.headers.get("range") for request in store.requests]
    assert len(ranges) == 3
    assert ranges[0] is None
    assert all(asked and asked.startswith("bytes=") for asked in ranges[1:])
    assert all(request.headers["if-match"] for request in store.requests)


def test_a_transfer_that_goes_on_breaking_is_given_up(store: Store, tmp_path: Path) -> None:
    store.put("in/k/a.csv", bytes(100_000))
    file = listed(store, tmp_path)
    store.requests.clear()
    store.meddle = cut(after=10)
    with pytest.raises(
        DeliveryError,
        match=r"^s3://.*/in/k/a\.csv: its transfer broke 6 times, last at byte \d+ of 100000",
    ) as error:
        content(file, 1)
    assert_nothing_of_theirs(error.value)
    assert len(store.requests) == 6


def test_a_long_transfer_may_break_more_often(store: Store, tmp_path: Path) -> None:
    body = bytes(7 * 5_000_000)
    store.put("in/k/a.csv", body)
    file = listed(store, tmp_path)
    store.meddle = cut(after=5_000_000)
    assert content(file, 1_000_000) == body


@pytest.mark.parametrize("becomes", ["other", "as long", "gone"])
def test_an_object_that_changes_after_it_was_listed_is_not_read(
    store: Store, tmp_path: Path, becomes: str
) -> None:
    store.put("in/k/a.csv", "as it was")
    file = listed(store, tmp_path)
    if becomes == "gone":
        store.client.delete_object(Bucket=store.bucket, Key="in/k/a.csv")
    else:
        store.put("in/k/a.csv", "as it is!" if becomes == "as long" else "longer than it was")
    with pytest.raises(DeliveryError, match=r"a\.csv: it changed while it was read; run again"):
        content(file)


def test_an_object_that_changes_while_a_transfer_is_broken_is_not_put_together(
    store: Store, tmp_path: Path
) -> None:
    store.put("in/k/a.csv", b"a" * 100_000)
    file = listed(store, tmp_path)
    store.meddle = cut(after=10_000, times=1)
    with file.open() as reading:
        assert reading.read(1000) == b"a" * 1000
        store.put("in/k/a.csv", b"b" * 100_000)
        with pytest.raises(DeliveryError, match="it changed while it was read"):
            list(iter(lambda: reading.read(1000), b""))


def test_of_a_bucket_with_versions_the_one_that_was_begun_is_read_on(
    store: Store, tmp_path: Path
) -> None:
    store.client.put_bucket_versioning(
        Bucket=store.bucket, VersioningConfiguration={"Status": "Enabled"}
    )
    store.put("in/k/a.csv", b"a" * 100_000)
    file = listed(store, tmp_path)
    store.meddle = cut(after=10_000, times=1)
    with file.open() as reading:
        found = reading.read(1000)
        store.put("in/k/a.csv", b"b" * 100_000)
        found += b"".join(iter(lambda: reading.read(1000), b""))
    assert found == b"a" * 100_000


@pytest.mark.parametrize("header", ["ETag", "Content-Length"])
def test_a_store_that_heeds_no_conditions_is_not_trusted(
    store: Store, tmp_path: Path, header: str
) -> None:
    store.put("in/k/a.csv", "as it was")
    file = listed(store, tmp_path)

    def another(request: Request, answer: Answer) -> Answer:
        if not request.is_read:
            return answer
        headers = [(k, v) for k, v in answer.headers if k.lower() != header.lower()]
        value = '"another"' if header == "ETag" else "4"
        return Answer(answer.status, [*headers, (header, value)], answer.body[:4])

    store.meddle = another
    with pytest.raises(DeliveryError, match="it changed while it was read"):
        content(file)


def test_a_byte_that_changes_on_the_way_is_found_by_other_checksums_too(
    store: Store, tmp_path: Path
) -> None:
    """Given an object with a CRC32, which its uploader's client computed, it is checked in flight."""
    store.put("in/k/a.csv", b"a" * 1000, ChecksumAlgorithm="CRC32")
    file = listed(store, tmp_path)
    store.meddle = lambda request, answer: (
        Answer(answer.status, answer.headers, b"b" + answer.body[1:]) if request.is_read else answer
    )
    with pytest.raises(DeliveryError, match="does not have the checksum that the store keeps"):
        content(file)


# What the store keeps of checksums


def test_the_checksum_of_a_whole_object_is_known(store: Store, tmp_path: Path) -> None:
    body = b"123456789"
    store.put("in/k/a.csv", body, ChecksumAlgorithm="CRC32C", ChecksumCRC32C=encoded(body))
    assert stored(listed(store, tmp_path)) == StoredChecksum(0xE3069283)
    store.put("in/k/b.csv", body)
    assert stored(listed(store, tmp_path, "b.csv")) is None


PARTS = [b"a" * LEAST_PART, b"b" * LEAST_PART, b"the rest"]
SIZES = tuple(len(part) for part in PARTS)


def test_the_checksum_of_a_whole_object_that_came_in_parts_is_its_own(
    store: Store, tmp_path: Path
) -> None:
    store.put_parts("in/k/a.csv", PARTS, "FULL_OBJECT")
    found = stored(listed(store, tmp_path))
    assert found is not None
    assert found.parts == ()


@pytest.mark.parametrize("told", ["at once", "one by one"])
def test_of_a_composite_checksum_the_parts_are_known(
    store: Store, tmp_path: Path, told: str
) -> None:
    store.put_parts("in/k/a.csv", PARTS)
    file = listed(store, tmp_path)
    store.requests.clear()
    if told == "at once":
        store.meddle = tell_parts(SIZES)
    found = stored(file)
    assert found is not None
    assert found.parts == SIZES
    heads = store.asked(lambda request: request.method == "HEAD")
    assert len(heads) == (0 if told == "at once" else 3)


@pytest.mark.parametrize("sizes", [(LEAST_PART,), (1, 2, 3), (0, sum(SIZES))])
def test_parts_that_do_not_make_up_the_object_are_not_believed(
    store: Store, tmp_path: Path, sizes: tuple[int, ...]
) -> None:
    store.put_parts("in/k/a.csv", PARTS)
    file = listed(store, tmp_path)
    store.meddle = tell_parts(sizes)
    assert stored(file) is None


def test_an_object_of_one_empty_part_is_read_and_nothing_claimed(
    store: Store, tmp_path: Path
) -> None:
    store.put_parts("in/k/a.csv", [b""])
    file = listed(store, tmp_path)
    assert stored(file) is None
    assert content(file) == b""


def test_where_the_parts_may_not_be_asked_for_the_object_is_read_all_the_same(
    store: Store, tmp_path: Path
) -> None:
    store.put_parts("in/k/a.csv", PARTS)
    file = listed(store, tmp_path)
    store.meddle = lambda request, answer: (
        answer if request.is_read else refusal(403, "AccessDenied")
    )
    assert stored(file) is None
    assert content(file) == b"".join(PARTS)


@pytest.mark.parametrize("value", ["", "AAAA", "%%%%", "AAAAAA==-x", "AAAAAA==-0"])
def test_a_checksum_that_is_none_is_none(store: Store, tmp_path: Path, value: str) -> None:
    store.put("in/k/a.csv", "abc")
    file = listed(store, tmp_path)

    def say(_: Request, answer: Answer) -> Answer:
        headers = [(k, v) for k, v in answer.headers if "checksum" not in k.lower()]
        return Answer(answer.status, [*headers, ("x-amz-checksum-crc32c", value)], answer.body)

    store.meddle = say
    assert stored(file) is None
    assert content(file) == b"abc"


# What is said when it fails


def assert_nothing_of_theirs(error: BaseException) -> None:
    """The message is ours alone, and no other error hangs on to it."""
    text = str(error)
    for theirs in (SECRET, KEY_ID, "127.0.0.1", "http", "botocore", "operation:"):
        assert theirs not in text
    assert error.__cause__ is None
    assert error.__context__ is None or error.__suppress_context__


@pytest.mark.parametrize(
    ("status", "code", "problem"),
    [
        (404, "NoSuchBucket", "there is no such bucket. Correct `source.path` in the feed"),
        (404, "", "there is no such bucket"),
        (
            403,
            "AccessDenied",
            "the store denies access. Let the credentials' owner list the bucket",
        ),
        (403, "", "the store denies access"),
        (403, "InvalidAccessKeyId", "does not take the credentials. Correct AWS_ACCESS_KEY_ID"),
        (403, "SignatureDoesNotMatch", "the store does not take the credentials"),
        (400, "ExpiredToken", "the credentials have expired. Renew them"),
        (403, "RequestTimeTooSkewed", "this machine's clock is wrong"),
        (400, "Nonsense", r"refuses, or has failed \(HTTP status 400\). Run again later"),
        (503, "SlowDown", r"refuses, or has failed \(HTTP status 503\). Run again later"),
    ],
)
def test_what_a_store_refuses_is_said_in_our_words(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    status: int, code: str, problem: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    store.put("in/k/a.csv", "a")
    file = listed(store, tmp_path)
    store.meddle = lambda _, __: refusal(status, code)
    for ask in (lambda: scan(feed_in(store), tmp_path), lambda: content(file)):
        with pytest.raises(DeliveryError, match=problem) as error:
            ask()
        assert str(error.value).startswith(f"s3://{store.bucket}")
        assert_nothing_of_theirs(error.value)


def test_a_bucket_that_is_not_there(store: Store, tmp_path: Path) -> None:
    feed = feed_of({"public.t": "*"}, source={"path": "s3://no-such-bucket-here/{batch}/*.csv"})
    with pytest.raises(DeliveryError, match="s3://no-such-bucket-here: there is no such bucket"):
        scan(feed, tmp_path)


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        (
            {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None},
            "there are no credentials. Set",
        ),
        ({"AWS_SECRET_ACCESS_KEY": None}, "the credentials are not complete"),
        ({"AWS_PROFILE": "nobody"}, "there is no profile of the name in AWS_PROFILE"),
        (
            {"AWS_ENDPOINT_URL": f"not-a-url-{SECRET}"},
            "AWS_ENDPOINT_URL or AWS_DEFAULT_REGION cannot",
        ),
        ({"AWS_ENDPOINT_URL": f"http://x:{SECRET}@127.0.0.1:9"}, "the store cannot be reached"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:99999"}, "cannot be"),
        (
            {"AWS_DEFAULT_REGION": "no region"},
            "AWS_ENDPOINT_URL or AWS_DEFAULT_REGION cannot be used",
        ),
        ({"AWS_RETRY_MODE": "never"}, r"the S3 client cannot be used \(InvalidRetryModeError\)"),
    ],
)
def test_an_environment_that_leads_nowhere_is_said_in_our_words(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str | None], problem: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    for name, value in variables.items():
        if value is None:
            monkeypatch.delenv(name)
        else:
            monkeypatch.setenv(name, value)
    with pytest.raises(DeliveryError, match=problem) as error:
        scan(feed_in(store), tmp_path)
    assert_nothing_of_theirs(error.value)


@pytest.mark.parametrize("status", [200, 404, 502])
def test_what_answers_may_be_no_store(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    page = f"<html><p>Hello {SECRET}<br></html>".encode()
    store.meddle = lambda _, __: Answer(status, [("Content-Length", str(len(page)))], page)
    with pytest.raises(DeliveryError, match=f"s3://{store.bucket}: ") as error:
        scan(feed_in(store), tmp_path)
    assert_nothing_of_theirs(error.value)


def test_nothing_of_it_is_logged(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Given logs as the command line and Dagster have them, then neither key nor token stands there."""
    caplog.set_level(logging.INFO)
    store.put("in/k/a.csv", "a")
    content(listed(store, tmp_path))
    assert SECRET not in caplog.text
    assert KEY_ID not in caplog.text


def test_every_third_request_may_fail(store: Store, tmp_path: Path) -> None:
    for number in range(4):
        store.put(f"in/k/{number}.csv", bytes(50_000 + number))
    count = [0]

    def third(_: Request, answer: Answer) -> Answer:
        count[0] += 1
        return refusal(503, "SlowDown") if count[0] % 3 == 0 else answer

    store.meddle = third
    delivery = find_delivery(feed_in(store), "k", tmp_path)
    assert delivery is not None
    assert [len(content(file)) for file in delivery.data] == [50_000, 50_001, 50_002, 50_003]
