"""The other tools that load.py compares with, each at its fastest; not part of the product.

    python benchmarks/peers.py                               which of them this Python has, as JSON
    python benchmarks/peers.py NAME FILE URL TABLE SCRATCH   load a file into a table that exists

It runs in whatever Python has them (see peers.txt) and so imports nothing of this project.
"""

from __future__ import annotations

import csv
import importlib
import importlib.util
import io
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_TEXTS = ("carrier", "tailnum", "origin", "dest")
_TIME = "time_hour"
_ROWS = 65_536
_BLOCK_BYTES = 8 << 20


def main() -> None:
    """Say what there is, or load."""
    if not sys.argv[1:]:
        print(json.dumps({name: _missing(name) for name in _PEERS}))
        return
    name, file, url, table, scratch = sys.argv[1:]
    _PEERS[name][0](Path(file), url, table, Path(scratch))


def _dlt(file: Path, url: str, table: str, scratch: Path) -> None:
    """Stream Arrow batches to Parquet files, which dlt hands to ADBC; two workers for each step."""
    os.environ.update(
        DATA_WRITER__BUFFER_MAX_ITEMS="200000",
        DATA_WRITER__FILE_MAX_ITEMS="1000000",
        NORMALIZE__DATA_WRITER__FILE_MAX_ITEMS="1000000",
        EXTRACT__WORKERS="2",
        NORMALIZE__WORKERS="2",
        LOAD__WORKERS="2",
        RUNTIME__DLTHUB_TELEMETRY="false",
        DLT_DATA_DIR=str(scratch),
    )
    dlt = _module("dlt")
    place, _, query = url.partition("?")
    host = dict(part.split("=") for part in query.split("&"))["host"]
    database = place.rpartition("/")[2]
    pipeline = dlt.pipeline(
        "benchmark",
        destination=dlt.destinations.postgres(
            f"postgresql://postgres:none@{host.replace('/', '%2F')}:5432/{database}"
        ),
        dataset_name="public",
        pipelines_dir=str(scratch),
    )

    @dlt.resource(name=table)  # type: ignore[untyped-decorator]
    def rows() -> Iterator[Any]:
        yield from _batches(file)

    info = pipeline.run(
        rows(), table_name=table, write_disposition="append", loader_file_format="parquet"
    )
    info.raise_on_failed_jobs()


def _duckdb(file: Path, url: str, table: str, scratch: Path) -> None:
    """Let DuckDB read the file and write to PostgreSQL."""
    duckdb = _module("duckdb")
    connection = duckdb.connect()
    _load_extension(connection, scratch)
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(f"ATTACH '{url}' AS target (TYPE postgres)")
    names = ", ".join(_read_schema(file))
    connection.execute(
        f"INSERT INTO target.public.{table} ({names}) "
        f"SELECT {names} FROM read_{file.suffix[1:]}('{file}')"
    )


def _adbc(file: Path, url: str, table: str, _scratch: Path) -> None:
    """Stream Arrow batches through ADBC's bulk ingest."""
    pa, dbapi = _module("pyarrow"), _module("adbc_driver_postgresql.dbapi")
    batches = _batches(file)
    first = next(batches)

    def all_batches() -> Iterator[Any]:
        yield first
        yield from batches

    reader = pa.RecordBatchReader.from_batches(first.schema, all_batches())
    with dbapi.connect(url) as connection:
        with connection.cursor() as cursor:
            cursor.adbc_ingest(table, reader, mode="append")
        connection.commit()


def _pandas(file: Path, url: str, table: str, _scratch: Path) -> None:
    """Use to_sql with the COPY function of pandas' own documentation."""
    pandas, sqlalchemy = _module("pandas"), _module("sqlalchemy")

    def copy(target: Any, connection: Any, names: list[str], rows: Any) -> None:
        buffer = io.StringIO()
        csv.writer(buffer).writerows(rows)
        buffer.seek(0)
        with connection.connection.cursor() as cursor:
            statement = f"COPY {target.name} ({', '.join(names)}) FROM STDIN WITH CSV"
            cursor.copy_expert(statement, buffer)

    whole = {name: "Int64" for name in _read_schema(file) if name not in (*_TEXTS, _TIME)}
    frame = pandas.read_csv(file, dtype=whole, parse_dates=[_TIME])
    engine = sqlalchemy.create_engine(url.replace("postgresql:", "postgresql+psycopg2:"))
    frame.to_sql(table, engine, index=False, if_exists="append", method=copy, chunksize=100_000)


_PEERS: dict[str, tuple[Callable[[Path, str, str, Path], None], tuple[str, ...]]] = {
    "dlt": (_dlt, ("dlt", "pyarrow", "adbc-driver-postgresql", "adbc-driver-manager")),
    "duckdb": (_duckdb, ("duckdb", "pyarrow")),
    "adbc": (_adbc, ("pyarrow", "adbc-driver-postgresql", "adbc-driver-manager")),
    "pandas": (_pandas, ("pandas", "pyarrow", "SQLAlchemy", "psycopg2-binary")),
}
_WHERE = ", in an environment of its own (see benchmarks/README.md)"
_MODULES = {"SQLAlchemy": "sqlalchemy", "psycopg2-binary": "psycopg2"}


def _missing(name: str) -> str:
    """Say what a peer lacks here, or nothing."""
    packages = [
        package
        for package in _PEERS[name][1]
        if not importlib.util.find_spec(_MODULES.get(package, package.replace("-", "_")))
    ]
    if packages:
        return f"pip install {' '.join(packages)}{_WHERE}"
    if name != "duckdb":
        return ""
    with tempfile.TemporaryDirectory() as scratch:
        try:
            _load_extension(_module("duckdb").connect(), Path(scratch))
        except Exception as error:  # noqa: BLE001  # several packages' own, and all mean the same
            packages = ["duckdb", "duckdb-extensions", "duckdb-extension-postgres-scanner"]
            return (
                f"DuckDB cannot load its postgres extension ({type(error).__name__}), which it "
                f"would fetch from the internet; pip install {' '.join(packages)}{_WHERE}"
            )
    return ""


def _load_extension(connection: Any, scratch: Path) -> None:
    """Load DuckDB's postgres extension, from its package or from where DuckDB keeps them."""
    if importlib.util.find_spec("duckdb_extensions"):
        connection.execute(f"SET extension_directory = '{scratch}'")
        _module("duckdb_extensions").import_extension("postgres_scanner", con=connection)
    connection.execute("LOAD postgres_scanner")  # which, unlike INSTALL, fetches nothing


def _batches(file: Path) -> Iterator[Any]:
    """Read a file as Arrow batches of the table's types."""
    pa = _module("pyarrow")
    fields = {name: pa.int32() for name in _read_schema(file)}
    fields |= dict.fromkeys(_TEXTS, pa.string()) | {_TIME: pa.timestamp("us", "UTC")}
    schema = pa.schema(fields)
    if file.suffix == ".parquet":
        for batch in _module("pyarrow.parquet").ParquetFile(file).iter_batches(_ROWS):
            yield batch.cast(schema)
        return
    reading = _module("pyarrow.csv")
    options = reading.ConvertOptions(column_types=schema, strings_can_be_null=True)
    yield from reading.open_csv(
        file, reading.ReadOptions(block_size=_BLOCK_BYTES), convert_options=options
    )


def _read_schema(file: Path) -> list[str]:
    if file.suffix == ".parquet":
        return list(_module("pyarrow.parquet").ParquetFile(file).schema_arrow.names)
    with file.open(encoding="utf-8", newline="") as lines:
        return next(csv.reader(lines))


def _module(name: str) -> Any:
    """Import what may not be there, and what our type checker need not know."""
    return importlib.import_module(name)


if __name__ == "__main__":
    main()
