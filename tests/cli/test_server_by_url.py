"""With BATCH_PIPELINES_DATABASE_URL: a server of somebody else, where little is touched."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.conftest import fresh_database
from tests.support_shop import DAY, FEED, deliver, orders

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from batch_pipelines.engine.postgres.server import EmbeddedServer
    from tests.cli.conftest import Cli

# Characters that a URL has to escape; the server trusts everybody, so any password does.
PASSWORD, ESCAPED = "s3cr3t@w0rd/100%", "s3cr3t%40w0rd%2F100%25"
_RELATIONS = """
SELECT nspname, relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE nspname NOT LIKE 'pg\\_%' AND nspname <> 'information_schema' AND relkind IN ('r', 'p', 'v')
"""


@pytest.fixture
def url(
    embedded: EmbeddedServer, feeds_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """An empty database on a server that is not ours, reached with a password."""
    with fresh_database(embedded) as plain:
        url = plain.replace("postgres@", f"postgres:{ESCAPED}@")
        assert url != plain
        for name in ("DAGSTER_HOME", "BATCH_PIPELINES_DAGSTER_STORAGE"):
            monkeypatch.setenv(name, "")
        monkeypatch.setenv("BATCH_PIPELINES_DATABASE_URL", url)
        yield url


def relations(url: str) -> set[tuple[str, str]]:
    with psycopg.connect(url) as connection:
        return {(str(schema), str(name)) for schema, name in connection.execute(_RELATIONS)}


def test_without_a_ledger_every_command_says_what_to_type(
    cli: Cli, url: str, feeds_folder: Path
) -> None:
    deliver(feeds_folder.parent, DAY, orders(5))
    for typed in (["import", FEED], ["batches"], ["show", f"{FEED}/{DAY}"]):
        ran = cli(*typed)
        assert ran.code == 2
        assert "Run `batch-pipelines db upgrade`." in ran.err
    assert {schema for schema, _ in relations(url)} <= {"batch_dagster"}


def test_only_our_schemas_and_the_feeds_tables_are_touched(
    cli: Cli, url: str, feeds_folder: Path
) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("CREATE SCHEMA theirs; CREATE TABLE theirs.own (x int)")
    deliver(feeds_folder.parent, DAY, orders(5))
    assert cli("db", "upgrade").code == 0
    assert cli("import", FEED).code == 0
    found = relations(url)
    assert {schema for schema, _ in found} == {"batch_audit", "batch_dagster", "public", "theirs"}
    assert {name for schema, name in found if schema == "public"} == {"customers", "orders"}
    assert not (feeds_folder.parent / "home" / "postgres").exists(), "no server of our own"


def test_the_password_is_nowhere_to_be_found(cli: Cli, url: str, feeds_folder: Path) -> None:
    folder = feeds_folder.parent
    deliver(folder, DAY, orders(5))
    deliver(folder, "wrong", "id\nx\n")
    typed = [
        ["db", "upgrade"], ["db", "status"], ["db", "url"], ["db", "start"], ["feeds", "check"],
        ["import", FEED], ["import", FEED, "--json"], ["batches"], ["show", f"{FEED}/{DAY}"],
    ]  # fmt: skip
    said = "".join(ran.out + ran.err for ran in (cli(*words) for words in typed))
    written = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for secret in (PASSWORD, ESCAPED):
        assert secret not in said
        assert [p for p, content in written.items() if secret.encode() in content] == []
        assert rows_with(url, secret) == []
    assert any(path.name == "dagster.yaml" for path in written)


def test_a_server_that_does_not_answer_is_named_without_its_password(
    cli: Cli, feeds_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver(feeds_folder.parent, DAY, orders(5))
    url = f"postgresql://postgres:{ESCAPED}@/shop?host={feeds_folder}"
    monkeypatch.setenv("BATCH_PIPELINES_DATABASE_URL", url)
    for typed in (["import", FEED], ["db", "upgrade"], ["batches"], ["feeds", "check"]):
        ran = cli(*typed)
        assert ran.code == 2
        assert f"The database shop on {feeds_folder} does not let us in" in ran.err
        assert "s3cr3t" not in ran.out + ran.err


def test_what_to_connect_to_is_printed_without_secrets(
    cli: Cli, feeds_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"postgresql://ada:{ESCAPED}@db.example/shop?sslpassword=s3cr3t2"
    monkeypatch.setenv("BATCH_PIPELINES_DATABASE_URL", url)
    ran = cli("db", "url")
    assert ran.code == 0
    assert "s3cr3t" not in ran.out
    parts = psycopg.conninfo.conninfo_to_dict(ran.out.strip())
    assert parts == {"user": "ada", "host": "db.example", "dbname": "shop"}


def test_a_url_of_another_kind_of_database_is_refused_without_repeating_it(
    cli: Cli, feeds_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCH_PIPELINES_DATABASE_URL", f"mysql://ada:{ESCAPED}@db.example/shop")
    ran = cli("db", "url")
    assert ran.code == 2
    assert "BATCH_PIPELINES_DATABASE_URL" in ran.err
    assert "must start with postgresql://" in ran.err
    assert "s3cr3t" not in ran.err


def rows_with(url: str, text: str) -> list[tuple[str, str]]:
    """Name the tables that hold a text anywhere."""
    with psycopg.connect(url) as connection:
        return [
            (schema, name)
            for schema, name in relations(url)
            # It shows what import_reject holds, and that to who has opened a batch.
            if name != "opened_reject"
            and connection.execute(
                psycopg.sql.SQL("SELECT FROM {} t WHERE strpos(t::text, %s) > 0").format(
                    psycopg.sql.Identifier(schema, name)
                ),
                (text,),
            ).fetchone()
            is not None
        ]
