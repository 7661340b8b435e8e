"""Another database as the source of a delivery: connected to, read in key ranges, staged as Parquet."""
