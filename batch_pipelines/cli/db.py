"""`db`: the embedded server, and the ledger's migrations."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import psycopg.conninfo
import typer

from batch_pipelines.cli import adoption
from batch_pipelines.cli.batches import opened_ledger
from batch_pipelines.cli.show import Json, print_json, print_table, say
from batch_pipelines.engine.adoption.give_back import give_all_back
from batch_pipelines.engine.adoption.records import FIRST_REVISION
from batch_pipelines.engine.adoption.standing import standings
from batch_pipelines.engine.audit.rebuild import rebuild
from batch_pipelines.engine.errors import SettingsError
from batch_pipelines.engine.postgres.actor import command_line
from batch_pipelines.engine.postgres.database import (
    DATA_DATABASE,
    embedded_server,
    open_as_owner,
)
from batch_pipelines.engine.postgres.migrate import (
    check_revision,
    downgrade,
    status,
)
from batch_pipelines.engine.settings import Settings, load_settings
from batch_pipelines.instance import bring_up_to_date

# Batches that are listed; JSON has all of them.
_NAMED = 20

app = typer.Typer(
    help="The embedded server, the ledger's schema, and tables that were there before.",
    no_args_is_help=True,
)
app.command("track")(adoption.track)
app.command("adopt")(adoption.adopt)
app.command("untrack")(adoption.untrack)


@app.command("start")
def start(*, json: Json = False) -> None:
    """Start the embedded PostgreSQL and keep it up until `db stop`."""
    settings = _embedded_only("start")
    embedded_server(settings).start()
    if json:
        print_json({"url": _embedded_url(settings)})
        return
    say(f"The embedded PostgreSQL runs. Connect with:\n  psql '{_embedded_url(settings)}'")


@app.command("stop")
def stop(
    *,
    force: Annotated[bool, typer.Option(help="Stop it even while other commands use it.")] = False,
    json: Json = False,
) -> None:
    """Stop the embedded PostgreSQL."""
    embedded_server(_embedded_only("stop")).stop(force=force)
    if json:
        print_json({"stopped": True})
        return
    say("The embedded PostgreSQL is stopped.")


@app.command("url")
def url(*, json: Json = False) -> None:
    """Print what to connect to; a password in it is not printed."""
    settings = load_settings()
    if settings.database_url is None:
        found = _embedded_url(settings)
    else:
        found = _without_secrets(settings.database_url.get_secret_value())
    if json:
        print_json({"url": found})
        return
    print(found)  # noqa: T201  # bare, for use in a shell


@app.command("upgrade")
def upgrade_(*, json: Json = False) -> None:
    """Bring the ledger up to date, and create the tables of feeds that ship SQL."""
    done = bring_up_to_date(load_settings())
    if json:
        print_json({"revision": done.revision, "tables_created_for": done.created})
        return
    say(f"The ledger is at revision {done.revision}.")
    for feed in done.created:
        say(f"Tables of feed {feed} created.")


@app.command("status")
def status_(*, json: Json = False) -> None:
    """Say which revision the ledger is at, which tables are tracked or adopted, and what is left."""
    with open_as_owner(load_settings()) as database, database.connect("status") as connection:
        found = status(connection)
        tables = standings(connection)
    left = ["batch-pipelines db upgrade"] if found.pending else [t.next for t in tables if t.next]
    if json:
        following = left[0] if left else None
        print_json({**dataclasses.asdict(found), "tables": tables, "next": following})
        return
    say(f"The ledger is at revision {found.current or 'none'}; the newest is {found.head}.")
    if found.pending:
        say(f"Pending: {', '.join(found.pending)}.")
    if tables:
        print_table(
            "Tables that were there before",
            ["table", "how", "state", "left"],
            [[t.table, t.kind, t.state, "; ".join(t.left) or None] for t in tables],
        )
    if left:
        say(f"Next: {left[0]}")


@app.command("downgrade")
def downgrade_(
    *,
    to: Annotated[str, typer.Option("--to", help="Revision to stop at; `base` removes all.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Take migrations of the ledger back, with what their tables hold.

    What `db track` and `db adopt` did to tables is taken back with the revision that knows of it.
    """
    if not yes:
        typer.confirm(
            f"This drops what the ledger holds past revision {to}. Go on?", abort=True, err=True
        )
    with open_as_owner(load_settings()) as database:
        check_revision(to)
        if to == "base" or to < FIRST_REVISION:
            give_all_back(database)
        after = downgrade(database, to)
    if json:
        print_json({"revision": after.current})
        return
    say(f"The ledger is at revision {after.current or 'none'}.")


@app.command("rebuild-history")
def rebuild_history(
    *,
    write: Annotated[bool, typer.Option("--write", help="Write the rows that differ.")] = False,
    json: Json = False,
) -> None:
    """Rebuild import_history from the audit trail; without --write, only say what differs.

    Verify the trail before (`verify --audit`), and let nobody import meanwhile.
    """
    with opened_ledger() as connection:
        found = rebuild(connection, write=write, by=command_line())
    if json:
        print_json({**dataclasses.asdict(found), "written": write})
    else:
        done = "were put right" if write else "differ; nothing was changed"
        say(f"{found.batches:,} batches in the trail; of these {len(found.differing):,} {done}.")
        for batch_id in found.differing[:_NAMED]:
            say(f"  {batch_id}")
        if found.differing and not write:
            say("Next: batch-pipelines db rebuild-history --write")
    if found.differing and not write:
        raise typer.Exit(1)


def _embedded_only(command: str) -> Settings:
    settings = load_settings()
    if settings.database_url is not None:
        message = (
            f"BATCH_PIPELINES_DATABASE_URL is set, so the embedded server is not in use and "
            f"`db {command}` has nothing to do. Unset it first."
        )
        raise SettingsError(message)
    return settings


def _without_secrets(url: str) -> str:
    # libpq itself says which of its options are secret: the password is not the only one.
    secret = {o.keyword.decode() for o in psycopg.pq.Conninfo.get_defaults() if o.dispchar}
    parts = psycopg.conninfo.conninfo_to_dict(url)
    shown = {name: value for name, value in parts.items() if name not in secret}
    return psycopg.conninfo.make_conninfo("", **shown)


def _embedded_url(settings: Settings) -> str:
    return embedded_server(settings).url(DATA_DATABASE)
