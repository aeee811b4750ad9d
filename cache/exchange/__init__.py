"""Caches to and from other caches and files: transfer, HDF5, Parquet."""
