"""Typing a command without starting a process: the same function, its output and its exit code."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from batch_pipelines.cli import main
from tests.support_shop import environment, open_shop

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Ran:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as JSON."""
        return json.loads(self.out)


class Cli(Protocol):
    """Runs a command."""

    def __call__(self, *arguments: str) -> Ran:
        """Run `batch-pipelines` with these arguments."""


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs commands in this process."""

    def run(*arguments: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["batch-pipelines", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        code = ended.value.code
        assert isinstance(code, int)
        return Ran(code, out, err)

    return run


@pytest.fixture
def feeds_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shop's feed files alone, with the environment saying so; no database is up."""
    open_shop(tmp_path)
    for name, value in environment(tmp_path, tmp_path / "home").items():
        monkeypatch.setenv(name, value)
    return tmp_path / "feeds"
