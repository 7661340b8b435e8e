"""A local web server as a channel of alerts, to which Apprise really sends."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

# In the path, as chats have it; and the password of a user.
TOKEN, PASSWORD = "tok-GEHEIM-en", "GEHEIM-word"  # what no log may have


@dataclass
class Service:
    """A service, and what it was sent.

    Attributes:
        port: Its port.
        got: The messages, in the order in which they came, whether they were taken or not.
        status: The status that it answers.
        seconds: How long it waits before it answers.
    """

    port: int
    got: list[dict[str, Any]] = field(default_factory=list)
    status: int = 200
    seconds: float = 0.0

    @property
    def url(self) -> str:
        """Apprise's URL of it, with two secrets."""
        return f"json://user:{PASSWORD}@127.0.0.1:{self.port}/{TOKEN}/"

    @property
    def titles(self) -> list[str]:
        """Titles of the messages."""
        return [message["title"] for message in self.got]


@contextmanager
def running_service() -> Iterator[Service]:
    """Run a service for the length of a block, and drop what still waits at its end."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # its name is given
            text = self.rfile.read(int(self.headers["Content-Length"]))
            service.got.append(json.loads(text))
            deadline = time.monotonic() + service.seconds
            while time.monotonic() < deadline and not over.is_set():
                time.sleep(0.01)
            # A client that is gone is one of the things that are tested.
            try:
                self.send_response(service.status)
                self.send_header("Content-Length", "0")
                self.end_headers()
            except (BrokenPipeError, ConnectionResetError):
                pass

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    over = threading.Event()
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        service = Service(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield service
        finally:
            over.set()
            server.shutdown()
            thread.join()
