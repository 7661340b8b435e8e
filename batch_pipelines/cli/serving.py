"""Serving the folder of reports to this machine's browsers, since Dagster's UI shows no files of ours.

Nothing but pages is served, to nobody but who asks for this machine by its own name: a page from
elsewhere whose name is made to lead here gets nothing.
"""

from __future__ import annotations

import re
import threading
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import io
    from collections.abc import Iterator

_HOST = "127.0.0.1"
_NAMES = frozenset({_HOST, "localhost"})
# How reports are named; what has no such name is no report.
_PAGE = re.compile(r"(/[A-Za-z0-9_][A-Za-z0-9._-]*)+\.html")
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}


class _Pages(SimpleHTTPRequestHandler):
    """Answers GET and HEAD with pages of the folder."""

    def send_head(self) -> io.BytesIO | BinaryIO | None:
        """Open what is asked for, if it is a page of the folder."""
        asked = self.headers.get("Host", "").rsplit(":", 1)[0]
        if (
            asked not in _NAMES
            or not _PAGE.fullmatch(urlsplit(self.path).path)
            or not self._is_ours()
        ):
            self.send_error(HTTPStatus.NOT_FOUND)
            return None
        return super().send_head()

    def _is_ours(self) -> bool:
        found = Path(self.translate_path(self.path))
        return found.is_file() and found.resolve().is_relative_to(Path(self.directory).resolve())

    def end_headers(self) -> None:
        """Add what every answer says."""
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *_: object) -> None:
        """Keep silent: the terminal tells of batches."""


@contextmanager
def served_pages(folder: Path, port: int) -> Iterator[str]:
    """Serve the pages below a folder on the loopback address, for the length of a block.

    Args:
        folder: The folder; it need not be there yet.
        port: The port; 0 takes any that is free.

    Yields:
        The URL of the folder.

    Raises:
        OSError: The port is taken.
    """
    handler = partial(_Pages, directory=str(folder))
    with ThreadingHTTPServer((_HOST, port), handler) as server:
        thread = threading.Thread(target=server.serve_forever, name="reports", daemon=True)
        thread.start()
        try:
            yield f"http://{_HOST}:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
