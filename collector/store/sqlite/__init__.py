"""Points in one SQLite file."""
