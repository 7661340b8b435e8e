"""Which feeds must not write at the same time, and whose runs go first."""

from __future__ import annotations

import pydantic
import pytest

from batch_pipelines.engine.feeds import Feed
from batch_pipelines.engine.queueing import RANKS, writer_groups


def feed(name: str, *tables: str, **more: object) -> Feed:
    written = [{"table": f"public.{table}", "files": f"{table}*"} for table in tables]
    source = {"path": f"landing/{name}/{{batch}}/*.csv"}
    return Feed.model_validate(
        {"feed": name, "source": source, "tables": written, "one_writer": True} | more
    )


def test_feeds_that_share_a_table_are_one_group() -> None:
    feeds = [feed("a", "x"), feed("b", "x", "y"), feed("c", "z")]
    assert writer_groups(feeds) == {
        "a": ("public.x", "public.y"),
        "b": ("public.x", "public.y"),
        "c": ("public.z",),
    }


def test_the_last_feed_may_join_two_groups() -> None:
    feeds = [feed("a", "x"), feed("b", "y"), feed("c", "x", "y")]
    assert set(writer_groups(feeds).values()) == {("public.x", "public.y")}


def test_a_feed_that_does_not_ask_is_in_no_group() -> None:
    assert writer_groups([feed("a", "x", one_writer=False), feed("b", "x")]) == {"b": ("public.x",)}


def test_the_more_urgent_the_higher() -> None:
    assert RANKS["critical"] > RANKS["high"] > RANKS["normal"] > RANKS["low"]
    assert feed("a", "x").priority == "normal"
    assert not feed("a", "x", one_writer=False).one_writer


def test_only_who_writes_can_be_the_one_writer() -> None:
    with pytest.raises(pydantic.ValidationError, match="one_writer"):
        feed("a", tables="none")
    with pytest.raises(pydantic.ValidationError, match="one_writer"):
        feed(
            "a", tables=[{"table": "public.x", "write": "none", "batch_column": "b", "key": ["i"]}]
        )
    with pytest.raises(pydantic.ValidationError, match="priority"):
        feed("a", "x", priority="urgent")
