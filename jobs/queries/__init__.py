"""The named Flux queries, each a file here, and what asks them.

Flux is in maintenance, and InfluxDB 3 has none: all of it that Gatewatch keeps for people is in this folder.
"""
