"""Reports are served to this machine's browsers, and nothing else is, to nobody else."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING

import pytest

from batch_pipelines.cli.serving import served_pages

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGE = "<!DOCTYPE html><p>ü"


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """The port of a folder that is served, with a page in it, and others beside it."""
    folder = tmp_path / "reports"
    (folder / "batches").mkdir(parents=True)
    (folder / "batches" / "a.html").write_text(PAGE, encoding="utf-8")
    (folder / "batches" / "a.json").write_text("{}")
    (folder / "batches" / ".a.html.7").write_text("half")
    (folder / "folder.html").mkdir()
    (tmp_path / "secret.html").write_text("secret")
    (folder / "link.html").symlink_to(tmp_path / "secret.html")
    with served_pages(folder, 0) as url:
        yield int(url.rsplit(":", 1)[1])


def ask(
    port: int, path: str, method: str = "GET", host: str = "127.0.0.1"
) -> tuple[int, bytes, http.client.HTTPMessage]:
    """Ask a server, as it stands: nothing of the path is made right."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.putrequest(method, path, skip_host=True)
    connection.putheader("Host", f"{host}:{port}")
    connection.endheaders()
    answer = connection.getresponse()
    return answer.status, answer.read(), answer.headers


def test_a_page_is_served_and_not_kept(port: int) -> None:
    status, body, headers = ask(port, "/batches/a.html")
    assert (status, body.decode()) == (200, PAGE)
    assert headers["Content-Type"].startswith("text/html")
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert ask(port, "/batches/a.html", "HEAD")[:2] == (200, b"")
    assert ask(port, "/batches/a.html?x=1#y", host="localhost")[0] == 200


@pytest.mark.parametrize(
    "path",
    ["/", "/batches/", "/batches", "/batches/a.json", "/batches/.a.html.7", "/nope.html",
     "/../secret.html", "/%2e%2e/secret.html", "//secret.html", "/link.html", "/folder.html",
     "/folder.html/", "/batches/a.html%00.json", "/batches/a.html/"],
)  # fmt: skip
def test_nothing_else_is(port: int, path: str) -> None:
    status, body, _ = ask(port, path)
    assert status == 404
    assert b"secret" not in body.replace(path.encode(), b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_can_be_done_to_it(port: int, method: str) -> None:
    assert ask(port, "/batches/a.html", method)[0] == 501


def test_nobody_is_answered_who_came_here_by_another_name(port: int) -> None:
    """A page from elsewhere whose host name leads to this machine must read nothing."""
    assert ask(port, "/batches/a.html", host="evil.example")[0] == 404
