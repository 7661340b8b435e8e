"""Run the tests that take minutes; how they ended goes to docs/soak.md and docs/reliability.md."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree as ET

from reliability import write_matrix

ROOT = Path(__file__).parents[1]
_HEAD = """\
# The last soak

`make soak` runs what takes too long for every change: the same laws as in `make test` over many more
examples, kills at many more moments, tables of millions of rows. It wrote this.

{when:%Y-%m-%d %H:%M} UTC, commit {commit}, Python {python}, {cores} cores:
{passed} of {all} tests passed.

| test | seconds | |
| --- | --- | --- |
"""


def main() -> int:
    """Run them.

    Returns:
        Exit code of pytest.
    """
    with TemporaryDirectory() as folder:
        report = Path(folder) / "soak.xml"
        ended = subprocess.run(  # noqa: S603  # our own tests
            [
                *(sys.executable, "-m", "pytest", "-m", "soak", f"--junitxml={report}"),
                *("--numprocesses", "auto", "--maxprocesses", "4", "--dist", "worksteal"),
            ],
            cwd=ROOT,
            check=False,
        )
        if not report.exists():
            return ended.returncode
        told = [*ET.parse(report).iter("testcase")]  # noqa: S314  # pytest's own
    cases = [_read(case) for case in told]
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],  # noqa: S607
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    head = _HEAD.format(
        when=datetime.now(UTC),
        commit=commit.stdout.strip() or "unknown",
        python=platform.python_version(),
        cores=os.cpu_count(),
        passed=sum(outcome == "passed" for *_, outcome in cases),
        all=len(cases),
    )
    write_matrix(told, f"{datetime.now(UTC):%Y-%m-%d}, commit {commit.stdout.strip() or 'unknown'}")
    lines = [f"| `{name}` | {seconds:.0f} | {outcome} |\n" for name, seconds, outcome in cases]
    (ROOT / "docs" / "soak.md").write_text(head + "".join(sorted(lines)))
    return ended.returncode


def _read(case: ET.Element) -> tuple[str, float, str]:
    name = f"{case.get('classname', '')}::{case.get('name', '')}"
    outcome = next((part.tag for part in case if part.tag in _WORDS), "passed")
    return name, float(case.get("time", "0")), _WORDS.get(outcome, outcome)


_WORDS = {"failure": "FAILED", "error": "FAILED", "skipped": "skipped"}

if __name__ == "__main__":
    sys.exit(main())
