"""Points in InfluxDB 2."""
