"""Connections mean the same everywhere, and writers meet under the locks of their tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pydantic
import pytest

from batch_pipelines.engine.errors import SettingsError
from batch_pipelines.engine.postgres.database import (
    TABLE_LOCK_CLASS,
    Database,
    dagster_url,
    lock_tables,
    open_database,
)

if TYPE_CHECKING:
    from batch_pipelines.engine.settings import Settings

pytestmark = pytest.mark.versions

LOCKS = """
SELECT objid::bigint, mode FROM pg_locks
WHERE locktype = 'advisory' AND classid = %s ORDER BY 1
"""


def test_a_session_is_pinned_whatever_the_role_and_database_say(database: Database) -> None:
    """Given a database with other habits, when we connect, values mean what they always mean."""
    with psycopg.connect(database.url, autocommit=True) as owner:
        name = owner.info.dbname
        for setting, value in (
            ("TimeZone", "Asia/Tokyo"), ("DateStyle", "SQL, DMY"), ("client_encoding", "LATIN1"),
        ):  # fmt: skip
            owner.execute(f"ALTER DATABASE {name} SET {setting} = '{value}'".encode())
    with database.connect("a test") as db:
        shown = db.execute("""
            SELECT timestamptz '2013-01-02 03:04Z'::text, current_setting('client_encoding'),
                   current_setting('application_name'), current_setting('lock_timeout')
        """).fetchone()
        assert shown == ("2013-01-02 03:04:00+00", "UTF8", "batch-pipelines a test", "1min")
        assert db.autocommit


def test_a_server_that_does_not_let_us_in_is_named_without_the_password(
    database18: Database,
) -> None:
    more = {"dbname": "none", "password": "geheim"}
    url = psycopg.conninfo.make_conninfo(database18.url, **more)
    with pytest.raises(SettingsError, match=r"The database none on .* does not let us in") as error:
        Database(url).connect("test")
    assert "geheim" not in str(error.value)
    assert "BATCH_PIPELINES_DATABASE_URL" in str(error.value)
    with pytest.raises(SettingsError, match="nobody on 127"):
        Database("postgresql://u:geheim@127.0.0.1:1/nobody").connect("test")
    assert "geheim" not in repr(Database(url))


@pytest.mark.parametrize("exclusive", [False, True])
def test_tables_are_locked_in_the_order_of_their_oids(
    database18: Database, *, exclusive: bool
) -> None:
    oids = [70_000, 16_384, (1 << 32) - 1, 1 << 31]
    with database18.connect("one") as one, database18.connect("two") as two:
        with one.transaction():
            lock_tables(one, oids, exclusive=exclusive)
            # However long it may wait for these, no later statement waits for long.
            assert one.execute("SHOW lock_timeout").fetchone() == ("1min",)
            held = two.execute(LOCKS, (TABLE_LOCK_CLASS,)).fetchall()
            mode = "ExclusiveLock" if exclusive else "ShareLock"
            assert held == [(oid, mode) for oid in sorted(oids)]
        assert two.execute(LOCKS, (TABLE_LOCK_CLASS,)).fetchall() == []


def test_loads_go_together_and_whoever_supersedes_waits_for_them(database18: Database) -> None:
    attempt = "SELECT pg_try_advisory_xact_lock%s(%%s, %%s)"
    with database18.connect("one") as one, database18.connect("two") as two, one.transaction():
        lock_tables(one, [16_384], exclusive=False)
        wanted = (TABLE_LOCK_CLASS, 16_384)
        assert two.execute((attempt % "_shared").encode(), wanted).fetchone() == (True,)
        assert two.execute((attempt % "").encode(), wanted).fetchone() == (False,)


def test_a_database_url_is_used_as_it_is(database18: Database, settings: Settings) -> None:
    own = settings.model_copy(update={"database_url": pydantic.SecretStr(database18.url)})
    with open_database(own) as opened:
        assert opened == Database(database18.url)
    assert not own.home.exists()


def secret(url: str | None) -> pydantic.SecretStr | None:
    return None if url is None else pydantic.SecretStr(url)


@pytest.mark.parametrize(
    ("database_url", "own_url", "expected"),
    [
        pytest.param(
            "postgresql://u@h/data",
            None,
            "postgresql+psycopg2:///data?user=u&host=h&options=-csearch_path%3Dbatch_dagster",
            id="a schema of its own in the target",
        ),
        pytest.param(
            "postgres://u@h/data?sslmode=require",
            None,
            "postgresql+psycopg2:///data?user=u&host=h&sslmode=require"
            "&options=-csearch_path%3Dbatch_dagster",
            id="beside other parameters",
        ),
        pytest.param(
            "postgresql://u:p%40ss@h1:5432,h2:5433/data?options=-cwork_mem%3D1MB",
            None,
            "postgresql+psycopg2:///data?user=u&password=p%40ss&host=h1%2Ch2&port=5432%2C5433"
            "&options=-cwork_mem%3D1MB%20-csearch_path%3Dbatch_dagster",
            id="beside other options, on one of two hosts",
        ),
        pytest.param(
            "postgresql://u@h/data",
            "postgresql://v@i/other",
            "postgresql+psycopg2:///other?user=v&host=i",
            id="the one that is set",
        ),
    ],
)
def test_where_dagster_keeps_its_storage(
    settings: Settings, database_url: str | None, own_url: str | None, expected: str
) -> None:
    changed = {"database_url": secret(database_url), "dagster_url": secret(own_url)}
    assert dagster_url(settings.model_copy(update=changed)) == expected


def test_the_embedded_server_has_a_database_for_dagster(settings: Settings) -> None:
    url = dagster_url(settings)
    assert url.startswith("postgresql+psycopg2:///dagster?user=batch_loader&host=")
