"""`report`: of a batch, or of a range of time; and what is done with reports."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from batch_pipelines.cli import compliance
from batch_pipelines.cli.report import report

_OF_A_RANGE = ("--month", "--from", "--to")


class _Reports(TyperGroup):
    """Takes `report BATCH` for `report batch BATCH`, and `report --month M` for `report period ...`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the command in front where it is left out; none of a batch's names is a command's."""
        if args and args[0] not in {*self.commands, "--help"}:
            ranged = any(each.split("=")[0] in _OF_A_RANGE for each in args)
            args = ["period" if ranged else "batch", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_Reports,
    help="Reports to read, print and hand over: `report BATCH` of a batch, `report --month YYYY-MM` of "
    "all that happened in a month.",
    no_args_is_help=True,
)
app.command("batch")(report)
app.command("period")(compliance.period)
app.command("sign")(compliance.sign)
app.command("check")(compliance.check)
app.command("list")(compliance.list_)
