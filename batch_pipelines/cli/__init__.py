"""The command line. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 partial success."""

from __future__ import annotations

from batch_pipelines.cli.app import main

__all__ = ["main"]
