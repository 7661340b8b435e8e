"""A local S3 server, and a proxy before it that counts requests and lets some of them go wrong.

The server is moto's, in a process of its own, spoken to over HTTP on loopback. What it does not do and
Amazon does (the parts in GetObjectAttributes), the proxy adds.
"""

from __future__ import annotations

import base64
import http.client
import itertools
import os
import subprocess
import sys
import time
import urllib.parse
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Any

import boto3
import crc32c
from botocore.retries import standard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    import pytest
    from types_boto3_s3 import S3Client
    from types_boto3_s3.literals import ChecksumTypeType
    from types_boto3_s3.type_defs import CompletedPartTypeDef

KEY_ID, SECRET = "AKIDOFATEST", "the-secret-of-a-test"
_START_SECONDS = 60


@dataclass(frozen=True)
class Request:
    """What a client asked.

    Attributes:
        method: `GET`, `HEAD`, ...
        path: With the query, as it was sent.
        headers: By name in lower case.
        body: What was sent with it.
    """

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""

    @property
    def is_listing(self) -> bool:
        """Whether it asks for a listing."""
        return "list-type=2" in self.path

    @property
    def is_read(self) -> bool:
        """Whether it asks for an object's bytes."""
        return self.method == "GET" and not self.is_listing and "?attributes" not in self.path


@dataclass
class Answer:
    """What the client is sent.

    Attributes:
        status: Of HTTP.
        headers: As they are sent, the length of the body as the server has it.
        body: What is sent of it: less than the length cuts the connection.
    """

    status: int
    headers: list[tuple[str, str]]
    body: bytes


def refusal(status: int, code: str = "") -> Answer:
    """Make an answer that says no, as S3 does."""
    body = f"<Error><Code>{code}</Code><Message>{SECRET}</Message></Error>".encode()
    return Answer(status, [("Content-Length", str(len(body)))], body)


@dataclass
class Store:
    """A bucket of its own on the server, which code under test reaches through the proxy.

    Attributes:
        client: Straight to the server, for what a sender does.
        port: Of the server.
        bucket: Name of the bucket.
        requests: What came by since the store was made or the list was cleared.
        meddle: Is shown each request and the server's answer, and says what the client gets.
    """

    client: S3Client
    port: int
    bucket: str
    requests: list[Request] = field(default_factory=list)
    meddle: Callable[[Request, Answer], Answer] = field(default=lambda _, answer: answer)

    def put(self, key: str, content: bytes | str, **more: Any) -> None:
        """Put an object, as a sender does."""
        body = content.encode() if isinstance(content, str) else content
        self.client.put_object(Bucket=self.bucket, Key=key, Body=body, **more)

    def put_many(self, keys: Iterable[str]) -> None:
        """Put small objects, without what a client does for each."""
        for key in keys:
            forward(self.port, Request("PUT", f"/{self.bucket}/{key}", {}))

    def put_parts(
        self, key: str, parts: Sequence[bytes], kind: ChecksumTypeType = "COMPOSITE"
    ) -> None:
        """Put an object in parts, of which all but the last have at least 5 MB."""
        there: dict[str, Any] = {"Bucket": self.bucket, "Key": key}
        upload = self.client.create_multipart_upload(
            **there, ChecksumAlgorithm="CRC32C", ChecksumType=kind
        )
        there["UploadId"] = upload["UploadId"]
        done: list[CompletedPartTypeDef] = [
            {
                "PartNumber": number,
                "ETag": self.client.upload_part(
                    **there, PartNumber=number, Body=part, ChecksumCRC32C=encoded(part)
                )["ETag"],
            }
            for number, part in enumerate(parts, 1)
        ]
        self.client.complete_multipart_upload(**there, MultipartUpload={"Parts": done})

    def asked(self, what: Callable[[Request], bool]) -> list[Request]:
        """Give the requests of a kind."""
        return [request for request in self.requests if what(request)]


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        port: On loopback.
        client: Straight to it.
    """

    port: int
    client: S3Client


def encoded(content: bytes) -> str:
    """Give the CRC32C of bytes as S3 writes it."""
    return base64.b64encode(crc32c.crc32c(content).to_bytes(4, "big")).decode()


def environment(monkeypatch: pytest.MonkeyPatch, endpoint: str, folder: Path) -> None:
    """Set the usual variables, and no profile of this machine's."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        # Nobody shall be asked for credentials over the network.
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(folder / "no-config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(folder / "no-credentials"),
    }.items():
        monkeypatch.setenv(name, value)


@contextmanager
def running_server(log: Path) -> Iterator[Server]:
    """Run an S3 server for the length of a block."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as free:
        port = free.server_port
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with (
        log.open("wb") as out,
        subprocess.Popen(command, stdout=out, stderr=out) as process,
    ):
        try:
            _wait(process, port, log)
            yield Server(port, _sender(port))
        finally:
            process.terminate()


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + _START_SECONDS
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/moto-api/data.json")
            connection.getresponse().read()
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.1)
        else:
            return
        finally:
            connection.close()


@contextmanager
def opened_store(server: Server, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[Store]:
    """Make a bucket, and have the environment lead to it through a proxy."""
    store = Store(server.client, server.port, f"landing-{uuid.uuid4().hex[:12]}")
    store.client.create_bucket(Bucket=store.bucket)
    with _Proxy(("127.0.0.1", 0), _handler(store)) as proxy:
        environment(monkeypatch, f"http://127.0.0.1:{proxy.server_port}", folder)
        thread = Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield store
        finally:
            proxy.shutdown()
            thread.join()


class _Proxy(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that hang up before they have all of an answer: some shall."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def _sender(port: int) -> S3Client:
    session = boto3.session.Session(KEY_ID, SECRET, region_name="us-east-1")
    return session.client("s3", endpoint_url=f"http://127.0.0.1:{port}")


def _handler(store: Store) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            headers = {k.lower(): v for k, v in self.headers.items()}
            if headers.pop("expect", "") == "100-continue":
                # The base class does so for HTTP/1.1 alone, and the client waits a second for it.
                self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            body = self.rfile.read(int(headers.get("content-length", 0)))
            request = Request(self.command, self.path, headers, body)
            store.requests.append(request)
            answer = store.meddle(request, forward(store.port, request))
            self.send_response_only(answer.status)
            for name, value in answer.headers:
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)

        do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815  # as the base class has it

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler


def forward(port: int, request: Request) -> Answer:
    """Pass a request on to the server."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        body = request.body or None
        connection.request(request.method, request.path, body, headers=request.headers)
        response = connection.getresponse()
        body = response.read()
        headers = [
            (k, v) for k, v in response.getheaders() if k.lower() not in {"connection", "server"}
        ]
        return Answer(response.status, headers, body)
    finally:
        connection.close()


def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have clients try again at once."""
    monkeypatch.setattr(standard.ExponentialBackoff, "delay_amount", lambda *_: 0)


def failing_every(number: int) -> Callable[[Request, Answer], Answer]:
    """Make a meddler that refuses each so-manieth request; what was asked may have been done."""
    passed = itertools.count(1)

    def meddle(_: Request, answer: Answer) -> Answer:
        return answer if next(passed) % number else refusal(503, "SlowDown")

    return meddle


def clock_ahead(seconds: float) -> Callable[[Request, Answer], Answer]:
    """Make a meddler that has the store's clock so far ahead of its objects' times."""

    def meddle(_: Request, answer: Answer) -> Answer:
        headers = [(k, v) for k, v in answer.headers if k.lower() != "date"]
        date = ("Date", formatdate(time.time() + seconds, usegmt=True))
        return Answer(answer.status, [*headers, date], answer.body)

    return meddle


def tell_parts(sizes: Sequence[int]) -> Callable[[Request, Answer], Answer]:
    """Make a meddler that adds an object's parts to what GetObjectAttributes answers, as Amazon does."""

    def meddle(request: Request, answer: Answer) -> Answer:
        query = urllib.parse.parse_qs(
            urllib.parse.urlsplit(request.path).query, keep_blank_values=True
        )
        if "attributes" not in query:
            return answer
        first = int(request.headers.get("x-amz-part-number-marker", 0))
        page = list(enumerate(sizes, 1))[first : first + 2]
        parts = "".join(
            f"<Part><PartNumber>{number}</PartNumber><Size>{size}</Size></Part>"
            for number, size in page
        )
        last = first + len(page)
        more = str(last < len(sizes)).lower()
        told = (
            f"<ObjectParts><PartsCount>{len(sizes)}</PartsCount><IsTruncated>{more}</IsTruncated>"
            f"<NextPartNumberMarker>{last}</NextPartNumberMarker>{parts}</ObjectParts>"
        )
        start, end, rest = answer.body.partition(b"</GetObjectAttributes")
        body = start + told.encode() + end + rest
        headers = [(k, v) for k, v in answer.headers if k.lower() != "content-length"]
        return Answer(answer.status, [*headers, ("Content-Length", str(len(body)))], body)

    return meddle
