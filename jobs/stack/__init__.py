"""What the compose stack runs beside the service: its set-up of InfluxDB, and the look at its health."""
