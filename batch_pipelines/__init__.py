"""batch-pipelines: batch imports you can trace, prove and take back.

`definitions` is the Dagster code location, `cli` the command line, `engine` everything that works
without Dagster.
"""
