"""Points as InfluxDB's line protocol, and read back."""

from gatewatch.collector.line_protocol.encoder import encode
from gatewatch.collector.line_protocol.parser import parse, split_lines

__all__ = ["encode", "parse", "split_lines"]
