"""Which process of a distributed training this is."""

from __future__ import annotations

import sys
from typing import NamedTuple

from gatewatch.collector.environment import read_variable


class Rank(NamedTuple):
    """A process of a distributed training.

    Attributes:
        number: from 0.
        joined: whether torch.distributed says so; otherwise it is the environment that a launcher has set.
    """

    number: int
    joined: bool


def current_rank() -> Rank:
    """Return the rank of this process: torch.distributed's where it is initialised, else that of torchrun's variables.

    A process of no distributed training has rank 0. Torch is not imported for this.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return Rank(int(distributed.get_rank()), True)
    size, rank = (_whole(read_variable(name)) for name in ("WORLD_SIZE", "RANK"))
    rank = _whole(read_variable("LOCAL_RANK")) if rank is None else rank
    return Rank(rank if rank is not None and size is not None and size > 1 else 0, False)


def _whole(text: str) -> int | None:
    return int(text) if text.isdecimal() else None
