"""The logger of Gatewatch: whatever a message quotes, it is one legible line."""

from __future__ import annotations

import logging

from gatewatch.collector.text import one_line


class _OneLine(logging.Filter):
    """Turn each message into one legible line, before any handler sees it."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record's message, and let the record pass."""
        try:
            text = record.getMessage()
        except Exception:  # what is quoted is of a user's class, and may do anything
            text = str(record.msg)
        record.msg, record.args = one_line(text), None
        return True


log = logging.getLogger("gatewatch")
log.addFilter(_OneLine())
