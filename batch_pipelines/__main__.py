"""`python -m batch_pipelines` is the command line."""

from __future__ import annotations

from batch_pipelines.cli import main

main()
