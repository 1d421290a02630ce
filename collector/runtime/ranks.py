"""Which process of a distributed training this is."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import NamedTuple

from gatewatch.collector.environment import read_variable, whole_number


class Rank(NamedTuple):
    """A process of a distributed training.

    Attributes:
        number: from 0.
        joined: whether the framework says so; otherwise it is the environment that a launcher has set.
    """

    number: int
    joined: bool


def current_rank() -> Rank:
    """Return the rank of this process, as the framework knows it that has joined the others, else torchrun's variables.

    A process of no distributed training has rank 0. No framework is imported for this. The variables of launchers that
    start independent trainings as well (SLURM, Open MPI, PMI) are not read: docs/decisions/0019-one-session-a-run.md.
    """
    for joined in (_in_torch, _in_tensorflow, _in_jax):
        with suppress(Exception):  # of a version that answers otherwise
            if (number := joined()) is not None:
                return Rank(number, True)
    size, rank = (whole_number(read_variable(name)) for name in ("WORLD_SIZE", "RANK"))
    rank = whole_number(read_variable("LOCAL_RANK")) if rank is None else rank
    return Rank(rank if rank is not None and size is not None and size > 1 else 0, False)


def _in_torch() -> int | None:
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    return int(distributed.get_rank())


def _in_tensorflow() -> int | None:
    """Return the rank in the scope of a MultiWorkerMirroredStrategy, where this is called in one."""
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is None or not tensorflow.distribute.has_strategy():
        return None
    strategy = tensorflow.distribute.get_strategy()
    if not isinstance(strategy, tensorflow.distribute.MultiWorkerMirroredStrategy):
        return None
    resolver = strategy.cluster_resolver
    tasks = resolver.cluster_spec().as_dict()
    ranks = [(kind, number) for kind in ("chief", "worker") for number in range(len(tasks.get(kind, ())))]
    return ranks.index((resolver.task_type, resolver.task_id))


def _in_jax() -> int | None:
    """Return the rank as jax.distributed knows it: `jax.process_index()` would wait for the other processes."""
    jax = sys.modules.get("jax._src.distributed")
    return None if jax is None or jax.global_state.client is None else int(jax.global_state.process_id)
