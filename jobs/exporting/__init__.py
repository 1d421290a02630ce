"""Writes the points of a run into tables for other programs: Parquet or CSV."""
