"""Names and numbers as text, for plotly and for people."""

from __future__ import annotations

import math
import re
from typing import Final

import numpy as np

_MARKUP: Final = {ord("&"): "&amp;", ord("<"): "&lt;", ord(">"): "&gt;", ord("%"): "&#37;", ord("$"): "&#36;"}
_SPACES = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\s]+")


def plotly_text(name: object, limit: int = 60) -> str:
    """A name that plotly draws as it stands: no HTML, no `%{…}` of a template, no `$…$` of MathJax.

    Plotly renders some HTML in every text and decodes entities after it has filled its templates, so entities are
    safe in both. What is longer than `limit` characters ends in an ellipsis.
    """
    text = _SPACES.sub(" ", str(name))
    return (text if len(text) <= limit else f"{text[: limit - 1]}…").translate(_MARKUP)


def number(value: object, digits: int = 3) -> str:
    """A number with `digits` significant digits, thousands separated by commas; an en dash where there is none."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return "–"
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    rounded = f"{value:.{digits}g}"
    return f"{value:,.0f}" if abs(float(rounded)) >= 10**digits else rounded  # which `g` writes with an exponent


def percent(share: object) -> str:
    """A share of 0 to 1 in percent; an en dash where there is none."""
    if not isinstance(share, int | float) or not math.isfinite(share):
        return "–"
    return "<1 %" if 0 < share < 0.01 else ">99 %" if 0.99 < share < 1 else f"{share:.0%}".replace("%", " %")


def duration(seconds: float) -> str:
    """A span of time in its two largest units: `3 d 4 h`, `2 min 5 s`, `0.4 s`."""
    if not math.isfinite(seconds) or seconds < 0:
        return "–"
    if seconds < 10:
        return f"{seconds:.1f} s"
    left = round(seconds)
    parts: list[str] = []
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        amount, left = divmod(left, length)
        if amount or parts:
            parts.append(f"{amount} {unit}" if amount else "")
    return " ".join(part for part in parts[:2] if part)


def moment(value: np.datetime64) -> str:
    """A moment as people write it, to the minute, to the second where it has some: `2026-05-28 14:30`, `2026-05-28`."""
    unit = next((unit for unit in ("D", "m") if value == value.astype(f"M8[{unit}]")), "s")
    return str(value.astype(f"M8[{unit}]")).replace("T", " ")


def words(parts: list[str]) -> str:
    """A list in a sentence: `a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))
