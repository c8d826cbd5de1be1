"""Read and write tables without pandas: CSV, Parquet, column names, times and histories."""
