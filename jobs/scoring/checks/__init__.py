"""Checks: statements about a sound training, in the order in which they are made. `CHECKS` lists each once."""

from typing import Final

from gatewatch.jobs.scoring.checks import (
    columns,
    feed,
    generalisation,
    look,
    memory,
    optimizer,
    policy,
    reference,
    reference_looks,
    weights,
)
from gatewatch.jobs.scoring.checks.base import Check

CHECKS: Final[tuple[Check, ...]] = (
    *optimizer.CHECKS,
    *weights.CHECKS,
    *look.CHECKS,
    *memory.CHECKS,
    *policy.CHECKS,
    *feed.CHECKS,
    *columns.CHECKS,
    *reference.CHECKS,
    *reference_looks.CHECKS,
    *generalisation.CHECKS,
)

__all__ = ["CHECKS", "Check"]
