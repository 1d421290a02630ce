"""What `gatewatch copy` does: moves the points of one store into another."""

from __future__ import annotations

from gatewatch.jobs.copying.copier import Check, Copier, Progress
from gatewatch.jobs.copying.plan import Part, Wanted, parts
from gatewatch.jobs.copying.retry import Patience
from gatewatch.jobs.copying.statistics import Copied, problems

__all__ = ["Check", "Copied", "Copier", "Part", "Patience", "Progress", "Wanted", "parts", "problems"]
