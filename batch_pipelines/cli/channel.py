"""A channel of alerts that needs no account: this terminal, by way of a web server on loopback."""

from __future__ import annotations

import json
import secrets
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_HOST = "127.0.0.1"
# A message has at most a few kilobytes; whoever sends more sends no alert.
_LARGEST = 100_000


@contextmanager
def terminal_channel(tell: Callable[[str, str], None]) -> Iterator[str]:
    """Take alerts for as long as the block lasts.

    Args:
        tell: Told title and text of each; neither has characters that a terminal would obey.

    Yields:
        Apprise's URL of the channel. Its path is a secret, so that nobody else writes here.
    """
    path = f"/{secrets.token_urlsafe(16)}/"

    class Handler(BaseHTTPRequestHandler):
        timeout = 10  # seconds; a sender that says nothing keeps no thread

        def do_POST(self) -> None:  # its name is given
            self.send_response(self._take())
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _take(self) -> int:
            length = self.headers.get("Content-Length", "")
            if self.path.rstrip("/") != path.rstrip("/"):
                return 404
            if not length.isdecimal() or int(length) > _LARGEST:
                return 413
            try:
                message = json.loads(self.rfile.read(int(length)))
                title, text = str(message["title"]), str(message["message"])
            except (ValueError, KeyError, TypeError):
                return 400
            tell(_printable(title), _printable(text))
            return 200

        def log_message(self, *_: object) -> None:
            """Say nothing of requests."""

    with ThreadingHTTPServer((_HOST, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, name="alerts")
        thread.start()
        try:
            yield f"json://{_HOST}:{server.server_address[1]}{path}"
        finally:
            server.shutdown()
            thread.join()


def _printable(text: str) -> str:
    return "".join(c for c in text if c.isprintable() or c == "\n")
