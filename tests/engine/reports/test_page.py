"""A page is one file that loads and runs nothing, whatever names are in it; so it is with CSV."""

from __future__ import annotations

import csv
import dataclasses
import datetime as dt
import io
import json
import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest

from batch_pipelines.engine.reports.charts import Chart, Series, draw, ticks_up_to
from batch_pipelines.engine.reports.export import csv_text, json_text, write_csv
from batch_pipelines.engine.reports.html import page_html
from batch_pipelines.engine.reports.page import Attention, Column, Fact, Page, Section, Table
from batch_pipelines.engine.reports.shown import short, shown, visible

if TYPE_CHECKING:
    from pathlib import Path

    from batch_pipelines.engine.reports.page import Cell, Kind

NOW = dt.datetime(2026, 11, 22, 20, 15, tzinfo=dt.UTC)
HOSTILE = [
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "' onmouseover='x", "&lt;b&gt;",
    "</style><style>*{}", "{{ 7 * 7 }}", "{% raw %}", "javascript:alert(1)", "]]></svg>",
    "a\u202egpj.exe",
    "=cmd|' /C calc'!A0", "\x1b[2Jgone", "x" * 500,
]  # fmt: skip


class Document(HTMLParser):
    """Collects what a browser would make of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep a tag with its attributes."""
        if tag != "wbr":  # a place where a line may end
            self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        """Keep text."""
        self.words.append(data)


def page(word: str, rows: int = 1, shown: int = 200) -> Page:
    """A page that has a word wherever one can come from outside."""
    kinds: list[Kind] = ["text", "code", "state"]
    columns = tuple(Column(word, kind) for kind in kinds)
    table = Table("names", word, columns, ((word,) * 3,) * rows, shown)
    chart = Chart(
        "c", word, (word, word), (Series(word, "good", (1.0, None)), Series(word, "bad", (2, 3)))
    )
    section = Section("s", word, (word,), (table,), (draw(chart),), (word,))
    return Page(
        "Batch report", word, "bad", word, (Fact(word, word), Fact("n", 1234, "count")),
        (Attention("warn", word, word),), (section,), NOW, "a test",
    )  # fmt: skip


@pytest.mark.parametrize("word", HOSTILE)
def test_no_word_becomes_markup(word: str) -> None:
    document, harmless = Document(page_html(page(word))), Document(page_html(page("a")))
    # The very same elements and attributes as with a harmless word, and the word is there to be read.
    assert document.tags == harmless.tags
    assert {name for name, _ in document.attributes} == {name for name, _ in harmless.attributes}
    assert visible(word) in "".join(document.words)
    assert "\u202e" not in "".join(document.words)
    assert "\x1b" not in "".join(document.words)


def test_a_page_asks_for_nothing_and_runs_nothing() -> None:
    text = page_html(page("a"))
    document = Document(text)
    assert not {"script", "link", "iframe", "object", "embed", "img", "form", "base"} & {
        *document.tags
    }
    assert not [
        name for name, _ in document.attributes if name.startswith("on") or name in {"src", "style"}
    ]
    assert {value for name, value in document.attributes if name == "href"} == {"#main", "#s"}
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy[1]
    # Nor does the style sheet.
    assert "@import" not in text
    assert not re.findall(r"url\((?!#)", text)


def test_a_page_can_be_walked_by_a_screen_reader() -> None:
    document = Document(page_html(page("a")))
    for landmark in (
        "header",
        "main",
        "nav",
        "footer",
        "h1",
        "h2",
        "caption",
        "thead",
        "figcaption",
        "title",
    ):
        assert landmark in document.tags
    assert ("lang", "en") in document.attributes
    assert ("scope", "col") in document.attributes
    assert ("scope", "row") in document.attributes
    ids = [value for name, value in document.attributes if name == "id"]
    assert len(ids) == len({*ids})
    assert {value for name, value in document.attributes if name == "aria-labelledby"} <= {*ids}


def test_what_does_not_find_room_on_the_page_is_counted() -> None:
    text = page_html(page("a", rows=1205, shown=5))
    assert text.count('<tr role="row">') == 6
    assert "1,200 more rows are in the JSON and CSV form" in text
    assert len(list(csv.reader(io.StringIO(csv_text(page("a", 1205, 5).tables[0]))))) == 1206


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("=1+1", "'=1+1"), ("+1", "'+1"), ("-1", "'-1"), ("@SUM(A1)", "'@SUM(A1)"), (" =1", "' =1"),
        ("\t=1", "'\t=1"), ("\r=1", "⟨U+000D⟩=1"), ("＝1", "'＝1"), ("a=1", "a=1"), ("a\nb", "a\nb"),  # noqa: RUF001
        ('say "x", y', 'say "x", y'), ("a\u202eb", "a⟨U+202E⟩b"), (-1, "-1"), (-1.5, "-1.5"), (None, ""),
        (True, "yes"), (NOW, "2026-11-22T20:15:00+00:00"),
    ],
)  # fmt: skip
def test_no_cell_of_csv_is_a_formula(value: Cell, written: str) -> None:
    text = csv_text(Table("t", "", (Column("=head"),), ((value,),)))
    assert list(csv.reader(io.StringIO(text, newline=""))) == [["'=head"], [written]]
    assert text.startswith("'=head\r\n")


def test_each_table_is_a_file(tmp_path: Path) -> None:
    (path,) = write_csv(tmp_path / "new" / "folder", page("ü").tables)
    assert path.name == "names.csv"
    assert path.read_bytes() == "ü,ü,ü\r\nü,ü,ü\r\n".encode()
    assert [each.name for each in path.parent.iterdir()] == ["names.csv"]


def test_json_is_the_model_as_it_is() -> None:
    found = json.loads(json_text(Fact("a\u202e", "=1")))
    assert found == {"name": "a\u202e", "value": "=1", "kind": "text"}
    assert (
        json.loads(json_text(dataclasses.replace(page("a"), made_at=NOW)))["made_at"]
        == NOW.isoformat()
    )
    assert json_text(Fact("\x1b\u202eü", None)).isascii()


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (1234567, "count", "1,234,567"), (1234.5678, "number", "1,234.568"),
        (99.5, "percent", "99.50 %"), (None, "text", "\u2013"), (False, "state", "no"),
        ("a\nb", "text", "a⟨U+000A⟩b"), ("a\nb", "code", "a\nb"),
        (NOW.astimezone(dt.timezone(dt.timedelta(hours=5))), "time", "2026-11-22 20:15:00"),
        ("क्‍ष", "text", "क्‍ष"),
    ],
)  # fmt: skip
def test_cells_are_written_for_people(value: Cell, kind: Kind, text: str) -> None:
    assert shown(value, kind) == text


@pytest.mark.parametrize(
    ("highest", "ticks"),
    [(0, [0, 1]), (1, [0, 0.25, 0.5, 0.75, 1]), (100, [0, 25, 50, 75, 100]), (7, [0, 2, 4, 6, 8]),
     (41, [0, 20, 40, 60]), (3e6, [0, 1e6, 2e6, 3e6])],
)  # fmt: skip
def test_an_axis_has_round_numbers(highest: float, ticks: list[float]) -> None:
    assert ticks_up_to(highest) == pytest.approx(ticks)


def test_numbers_of_an_axis_are_short() -> None:
    assert [short(each) for each in (0, 0.25, 999, 1200, 35e6, 2e9)] == [
        "0", "0.25", "999", "1.2k", "35M", "2G",
    ]  # fmt: skip
