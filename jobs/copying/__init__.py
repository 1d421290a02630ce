"""What `gatewatch copy` does: moves the points of one store into another."""

from __future__ import annotations

from jobs.copying.copied import Copied, problems
from jobs.copying.copier import Check, Copier, Progress
from jobs.copying.patience import Patience
from jobs.copying.plan import Part, Wanted, parts

__all__ = ["Check", "Copied", "Copier", "Part", "Patience", "Progress", "Wanted", "parts", "problems"]
