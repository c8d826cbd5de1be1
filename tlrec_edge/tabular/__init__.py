"""Reading and writing tables without pandas: columns, times, CSV and Parquet."""
