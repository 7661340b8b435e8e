"""Run the tests that take minutes; how they ended goes to docs/soak.md and docs/reliability.md.

Without arguments all of them, which takes hours; otherwise those that the arguments, which are
pytest's, choose. A line of docs/soak.md is written when its test has ended, and stays until then.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree as ET

import pytest
from reliability import write_matrix

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "soak.md"
_ALL = ("--numprocesses", "auto", "--maxprocesses", "4", "--dist", "worksteal")
_HEAD = """\
# The last soak

`make soak` runs what takes too long for every change: the same laws as in `make test` over many more
examples, kills at many more moments, tables of millions of rows.
`make soak ONLY=tests/engine/test_kill.py` runs some of it; whatever pytest takes may stand there.
It writes this table, in which each test's line tells of its last run. Seconds are those of all its
cases, added up.

| test | result | seconds | when (UTC), on what |
| --- | --- | --: | --- |
"""
_LINE = re.compile(r"\| `(?P<test>[^`]+)` \|.*\|\n?")
_FAILED = "FAILED"


@dataclass
class Form:
    """One test in its long form.

    Attributes:
        outcomes: How often its cases ended how.
        failed: The cases that failed.
        told: What they measured.
        seconds: Of all cases together, with what they set up.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def line(self, test: str, where: str) -> str:
        """Write its line.

        Args:
            test: Its name.
            where: When, and on what.
        """
        result = ", ".join(f"{count} {outcome}" for outcome, count in sorted(self.outcomes.items()))
        named = f" ({', '.join(self.failed)})" if any(self.failed) else ""
        told = "".join(f"; {each}" for each in self.told)
        return f"| `{test}` | {result}{named}{told} | {self.seconds:.0f} | {where} |\n"


class Recorder:
    """Hears of each test that has ended, from whichever process, and writes its line."""

    def __init__(self, where: str, lines: dict[str, str]) -> None:
        """Begin.

        Args:
            where: The commit, and what it runs on.
            lines: Those that stay until their test runs again.
        """
        self._where, self._lines = where, lines
        self._forms: dict[str, Form] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take down what is heard of a test's phases: before, itself, after."""
        test, _, case = report.nodeid.partition("[")
        form = self._forms.setdefault(test, Form())
        form.seconds += report.duration
        if report.failed:
            form.outcomes[_FAILED] += 1
            form.failed.append(case.removesuffix("]"))
        elif report.when == "call" or report.skipped:
            form.outcomes[report.outcome] += 1
        if report.when == "teardown":
            form.told += [str(value) for name, value in report.user_properties if name == "soak"]
            when = f"{datetime.now(UTC):%Y-%m-%d %H:%M}, {self._where}"
            self._lines[test] = form.line(test, when)
            _write(self._lines)


def main(chosen: list[str]) -> int:
    """Run them.

    Args:
        chosen: Arguments for pytest; none for all tests.

    Returns:
        Exit code of pytest.
    """
    commit = _commit()
    where = f"{commit}, Python {platform.python_version()}, {os.cpu_count()} cores"
    # What ran and is no more shall not stand there for ever.
    recorder = Recorder(where, _read() if chosen else {})
    with TemporaryDirectory() as folder:
        report = Path(folder) / "soak.xml"
        os.chdir(ROOT)
        # What tests tell of themselves is no part of the newer family.
        asked = ["-m", "soak", f"--junitxml={report}", "-o", "junit_family=xunit1"]
        code = pytest.main([*asked, *(chosen or _ALL)], plugins=[recorder])
        # Of some of its cases no whole matrix can be made.
        if report.exists() and (not chosen or chosen[0].endswith("test_kill_matrix.py")):
            told = ET.parse(report).iter("testcase")  # noqa: S314  # pytest's own
            write_matrix(told, f"{datetime.now(UTC):%Y-%m-%d}, commit {commit}")
    return int(code)


def _commit() -> str:
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty"],  # noqa: S607
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return found.stdout.strip() or "unknown"


def _read() -> dict[str, str]:
    """Read the lines that are there, by test."""
    if not DOCUMENT.exists():
        return {}
    found = map(_LINE.fullmatch, DOCUMENT.read_text().splitlines(keepends=True))
    return {line["test"]: line[0] for line in found if line is not None}


def _write(lines: dict[str, str]) -> None:
    DOCUMENT.write_text(_HEAD + "".join(lines[test] for test in sorted(lines)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
