"""Rows of a published batch, put away in a bag of their own, and read from it again.

What lives here, in the order of the data: how each column of a table is held (`shape`), the rows as
PostgreSQL sends them (`copy_out`), Parquet (`parquet`), how they differ from those that were loaded
(`since`), the bag's account of its tables (`account`), writing one (`export`), reading it again
(`reading`), and the rows that are in the tables now, held against it (`live`). What does not: whether
rows may go, and bringing them back.
"""
