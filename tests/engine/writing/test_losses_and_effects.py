"""What PostgreSQL would do without a word: shorten, round, delete or blank elsewhere. It does none."""

from __future__ import annotations

import re
import threading
import time
from typing import TYPE_CHECKING

import psycopg
import pytest

from batch_pipelines.engine.errors import PublishError
from tests.support_engine import do_stage
from tests.support_rejects import Bad, check_bad_records

if TYPE_CHECKING:
    from batch_pipelines.engine.ledger.stages import Stage
    from tests.engine.conftest import MakeSite
    from tests.support_engine import Site

_PROVEN: tuple[Stage, ...] = ("ingest", "checksum")


@pytest.mark.parametrize(
    ("type_name", "good", "bad", "sqlstate"),
    [
        pytest.param("char(3)", "abc", "abcd", "22001", id="char"),
        pytest.param("bit(3)", "101", "10111", "22026", id="bit"),
        pytest.param("varbit(3)", "10", "10111", "22001", id="varbit"),
        pytest.param("varchar(2)[]", "{ab}", "{abcd}", "22001", id="array of varchar"),
        pytest.param("numeric(40,2)", "1.5", "1.239", "22001", id="numeric"),
        pytest.param("interval(0)", "1 second", "1.6 seconds", "22001", id="interval"),
        pytest.param("short", "abc", "abcd", "22001", id="domain over varchar"),
        pytest.param("price", "12.30", "12.345", "22001", id="domain over numeric"),
        pytest.param("positive", "1", "-1", "23514", id="domain with a check"),
        pytest.param('"char"', "a", "xyz", "22001", id="internal char"),
        pytest.param("jsonb", '"{""a"": 1}"', "{a", "22P02", id="json"),
        pytest.param("mood", "glad", "angry", "22P02", id="enum"),
    ],
)
def test_a_text_is_stored_whole_or_set_aside(
    site: MakeSite, type_name: str, good: str, bad: str, sqlstate: str
) -> None:
    here = site(
        "CREATE DOMAIN short AS varchar(3); CREATE DOMAIN price AS numeric(5,2);"
        "CREATE DOMAIN positive AS integer CHECK (VALUE > 0);"
        "CREATE TYPE mood AS ENUM ('glad', 'sad');"
        f"CREATE TABLE public.t (id integer PRIMARY KEY, v {type_name}, import_batch_id uuid)"
    )
    if type_name == "bit(3)" and here.connection.info.server_version < 160_000:
        sqlstate = "22001"  # before 16 it is cast, which shortens it, and then compared
    said = check_bad_records(
        here,
        {"t.csv": f"id,v\n1,{good}\n2,\n3,{bad}\n4,{bad}\n"},
        *(Bad("t.csv", record, sqlstate, "v") for record in (3, 4)),
    )
    assert "record 3 (line 4), column v: " in said
    # An id, of the batch or of another run, may hold such characters by chance.
    assert bad not in re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "", said)
    assert here.count("SELECT count(v) FROM public.t") == 1


def test_an_object_with_a_key_twice_is_set_aside_where_one_value_would_be_dropped(
    site18: MakeSite,
) -> None:
    here = site18(
        "CREATE TABLE public.t (id integer PRIMARY KEY, v jsonb, w json, import_batch_id uuid)"
    )
    twice, deep = '"{""a"": 1, ""a"": 2}"', '"[{""b"": [{""a"": 1, ""a"": 1}]}]"'
    check_bad_records(
        here,
        {"t.csv": f"id,v,w\n1,{{}},{twice}\n2,{twice},{{}}\n3,{deep},\n"},
        Bad("t.csv", 2, "22001", "v"),
        Bad("t.csv", 3, "22001", "v"),
    )


def test_a_table_of_nothing_but_text_columns_loads(site18: MakeSite) -> None:
    here = site18("CREATE TABLE public.t (a char(2), b jsonb, import_batch_id uuid)")
    assert here.load({"t.csv": 'a,b\nxy,"[1, 2]"\nz,\n'}).status == "SUCCESS"
    assert here.count("SELECT count(*) FROM public.t") == 2


def _parent_and_child(site18: MakeSite, action: str) -> Site:
    here = site18(
        "CREATE TABLE public.t (id integer PRIMARY KEY, code text UNIQUE, import_batch_id uuid);"
        f"CREATE TABLE public.child (code text REFERENCES public.t (code) {action})"
    )
    here.load({"t.csv": "id,code\n1,a\n2,b\n"})
    here.sql("INSERT INTO public.child VALUES ('a')")
    return here


@pytest.mark.parametrize("action", ["SET NULL", "CASCADE", "SET DEFAULT"])
def test_a_changed_value_that_a_key_would_carry_on_is_refused(
    site18: MakeSite, action: str
) -> None:
    here = _parent_and_child(site18, f"ON UPDATE {action}")
    here.deliver({"t.csv": "id,code\n1,changed\n2,b\n"})
    with pytest.raises(PublishError, match=r"public\.child .* by child_code_fkey"):
        here.run()
    assert here.sql("SELECT code FROM public.child") == [("a",)]
    assert here.load({"t.csv": "id,code\n1,a\n2,changed\n"}).status == "SUCCESS"


@pytest.mark.parametrize("action", ["SET NULL", "CASCADE", "SET DEFAULT"])
def test_a_missing_row_that_others_would_lose_by_is_refused(site18: MakeSite, action: str) -> None:
    here = _parent_and_child(site18, f"ON DELETE {action}")
    here.deliver({"t.csv": "id,code\n2,b\n"})
    with pytest.raises(PublishError, match=r"public\.child .* by child_code_fkey"):
        here.run()
    assert here.sql("SELECT code FROM public.child") == [("a",)]
    assert here.load({"t.csv": "id,code\n1,a\n"}).status == "SUCCESS"


def test_a_child_that_is_just_being_added_is_waited_for(site18: MakeSite) -> None:
    here = _parent_and_child(site18, "ON DELETE CASCADE")
    here.deliver({"t.csv": "id,code\n1,a\n"})
    with psycopg.connect(here.database.url) as other:
        other.execute("INSERT INTO public.child VALUES ('b')")
        outcome: list[BaseException] = []

        def run() -> None:
            try:
                here.run()
            except PublishError as error:
                outcome.append(error)

        runner = threading.Thread(target=run)
        runner.start()
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            " AND datname = current_database()"
        )
        while runner.is_alive() and here.count(waiting) == 0:
            time.sleep(0.01)
        assert runner.is_alive()
        other.commit()
        runner.join()
    assert "public.child" in str(outcome[0])
    assert here.sql("SELECT code FROM public.child ORDER BY 1") == [("a",), ("b",)]


def test_a_tree_that_goes_as_a_whole_may_go(site18: MakeSite) -> None:
    here = site18(
        "CREATE TABLE public.t (id integer PRIMARY KEY,"
        " up integer REFERENCES public.t ON DELETE CASCADE, import_batch_id uuid)"
    )
    here.load({"t.csv": "id,up\n1,\n2,1\n3,\n"})
    assert here.load({"t.csv": "id,up\n3,\n"}).status == "SUCCESS"
    assert here.sql("SELECT id FROM public.t") == [(3,)]


def test_twins_under_two_keys_are_published_once_where_the_feed_says_so(site18: MakeSite) -> None:
    here = site18("CREATE TABLE public.t (id integer, import_batch_id uuid)", identity="feed")
    here.deliver({"t.csv": "id\n1\n"}, "one")
    here.deliver({"t.csv": "id\n1\n"}, "two")
    with here.work("one") as (first, one), here.work("two") as (second, two):
        for stage in _PROVEN:
            do_stage(stage, first, one)
            do_stage(stage, second, two)
        do_stage("bulk_write", first, one)
        with pytest.raises(PublishError, match="same delivery is in force"):
            do_stage("bulk_write", second, two)
    assert here.count("SELECT count(*) FROM public.t") == 1
    assert here.run("two").status == "DUPLICATE"


def test_names_with_percent_signs_and_quotes_load_and_supersede(site18: MakeSite) -> None:
    here = site18(
        'CREATE TABLE public."t%s" (id integer PRIMARY KEY, "a%%b""c" text UNIQUE,'
        " import_batch_id uuid CHECK (true));"
        'CREATE TABLE public.child (id integer REFERENCES public."t%s" ON DELETE CASCADE)',
        {"public.t%s": "*"},
    )
    here.load({"t.csv": 'id,"a%%b""c"\n1,x\n2,y\n'})
    assert here.load({"t.csv": 'id,"a%%b""c"\n1,changed\n3,z\n'}).status == "SUCCESS"
    check_bad_records(
        here,
        {"t.csv": 'id,"a%%b""c"\n1,same\n3,same\n'},
        Bad("t.csv", 2, "23505", None, 't%s_a%%b"c_key'),
    )
