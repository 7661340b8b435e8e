"""`report`: of a batch, of a feed, or of a range of time; and what is done with reports."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from batch_pipelines.cli import compliance
from batch_pipelines.cli.feed_report import feed_report
from batch_pipelines.cli.report import report

# An option that says which report is meant, the first of them that is there.
_SAID_BY = {"--month": "period", "--from": "period", "--to": "period", "--feed": "feed"}


class _Reports(TyperGroup):
    """Takes `report BATCH` for `report batch BATCH`, and `report --month M` for `report period ...`.

    And `report --feed F` for `report feed ...`; with a range of months or days it is one of those.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the command in front where it is left out; none of a batch's names is a command's."""
        if args and args[0] not in {*self.commands, "--help"}:
            options = {each.split("=")[0] for each in args}
            said = (kind for option, kind in _SAID_BY.items() if option in options)
            args = [next(said, "batch"), *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_Reports,
    help="Reports to read, print and hand over: `report BATCH` of a batch, `report --feed FEED` of its "
    "batches over time, `report --month YYYY-MM` of all that happened in a month, for auditors.",
    no_args_is_help=True,
)
app.command("batch")(report)
app.command("feed")(feed_report)
app.command("period")(compliance.period)
app.command("sign")(compliance.sign)
app.command("check")(compliance.check)
app.command("list")(compliance.list_)
