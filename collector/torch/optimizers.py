"""Steps, learning rates and second moments of torch optimizers, read without a trace."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final
from weakref import ref

import numpy as np
import torch

from gatewatch.collector.reach import ADAGRAD_REACH, Reach, adam_reach, rmsprop_reach
from gatewatch.collector.travel import Moments, OptimizerFacts
from gatewatch.collector.updates import largest


@dataclass(frozen=True, slots=True)
class Count:
    """The steps of optimizers with one parameter, since they are counted.

    Attributes:
        steps: how many they are.
        rates: the sum of their learning rates.
        uncounted: steps of which it is not known whether they were made, or with this parameter.
        unrated: steps whose learning rate is not known.
        optimizer: the number of the latest optimizer; None before the first step.
        changes: how often another optimizer made the next step.
    """

    steps: int = 0
    rates: float = 0.0
    uncounted: int = 0
    unrated: int = 0
    optimizer: int | None = None
    changes: int = 0


Counts = Mapping[int, Count]
"""`id` of each tensor of a parameter → its steps."""


@dataclass(slots=True)
class _Optimizer:
    """What an optimizer has done since its steps were last added to those of its parameters.

    Attributes:
        optimizer: a weak reference.
        number: tells it from others; an `id` may come again.
        members: group → `id` of its parameters.
        sizes: group → how many they are.
        steps: how many it has made.
        rates: group → the sum of its learning rates, NaN where one of them is not known.
        uncounted: how many it may have made or not.
    """

    optimizer: ref[torch.optim.Optimizer]
    number: int
    members: list[list[int]] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    steps: int = 0
    uncounted: int = 0

    def begin(self, members: list[list[int]]) -> None:
        """Begin to count anew, with these members."""
        self.members, self.sizes = members, [len(group) for group in members]
        self.rates, self.steps, self.uncounted = [0.0] * len(members), 0, 0


class StepCounter:
    """Counts the steps of optimizers, and adds up the learning rates of their groups.

    A step costs a few additions, however many parameters there are: what an optimizer did is added to the parameters of
    its groups when `counts()` asks for it.
    """

    def __init__(self) -> None:
        self._optimizers: dict[int, _Optimizer] = {}
        self._counts: dict[int, Count] = {}
        self._numbers = 0

    def note(self, optimizer: torch.optim.Optimizer, *, may_skip: bool = False) -> None:
        """Note that an optimizer has made a step.

        Args:
            optimizer: after the step.
            may_skip: whether a scaler may have kept it from that, which only the device knows.
        """
        groups = optimizer.param_groups
        one = self._optimizers.get(id(optimizer))
        if one is None or one.optimizer() is not optimizer or one.sizes != [len(group["params"]) for group in groups]:
            one = self._begin(optimizer)
        if may_skip:
            one.uncounted += 1
            return
        one.steps += 1
        for index, group in enumerate(groups):
            rate = group.get("lr")
            one.rates[index] += rate if type(rate) is float else _known_rate(rate)

    def counts(self, parameters: Iterable[torch.Tensor]) -> Counts:
        """Return the steps with each of some tensors."""
        for one in [*self._optimizers.values()]:
            self._add(one)
        return {id(parameter): self._counts.get(id(parameter), Count()) for parameter in parameters}

    def keep_only(self, parameters: Collection[int]) -> None:
        """Forget the steps with parameters of another `id` than these."""
        self._counts = {key: count for key, count in self._counts.items() if key in parameters}

    def _begin(self, optimizer: torch.optim.Optimizer) -> _Optimizer:
        """Begin to count the steps of an optimizer, or of one whose groups have changed."""
        one = self._optimizers.pop(id(optimizer), None)
        if one is not None:
            self._add(one)
        if one is None or one.optimizer() is not optimizer:
            self._numbers += 1
            one = _Optimizer(ref(optimizer), self._numbers)
            one.begin(_members(optimizer))
        self._optimizers[id(optimizer)] = one
        return one

    def _add(self, one: _Optimizer) -> None:
        """Add what an optimizer has done to its parameters, and begin anew with it."""
        optimizer = one.optimizer()
        present = one.members if optimizer is None else _members(optimizer)
        for index, rates in enumerate(one.rates):
            now = present[index] if index < len(present) else []
            for key in one.members[index]:
                self._counts[key] = _after(self._counts.get(key, Count()), one, rates)
            for key in {*one.members[index]} ^ {*now}:  # it has come or gone meanwhile, nobody knows when
                count = self._counts.get(key, Count())
                self._counts[key] = replace(count, uncounted=count.uncounted + 1)
        one.begin(present)
        if optimizer is None:
            self._optimizers = {key: other for key, other in self._optimizers.items() if other is not one}


def steps_between(earlier: Counts | None, now: Counts) -> tuple[int | None, float | None]:
    """Return how many steps an optimizer has made with a parameter between two counts, and the sum of their rates.

    If the tensors of the parameter have several rates, it is the largest sum. None where it is not known.
    """
    if earlier is None or earlier.keys() != now.keys():
        return None, None
    pairs = [(earlier[key], count) for key, count in now.items()]
    steps = {new.steps - old.steps for old, new in pairs}
    if len(steps) != 1 or steps == {0} or any(old.uncounted != new.uncounted for old, new in pairs):
        return None, None
    rates = largest(None if old.unrated != new.unrated else new.rates - old.rates for old, new in pairs)
    return steps.pop(), rates


def is_one_optimizer(earlier: Counts | None, now: Counts) -> bool:
    """Return whether one optimizer alone has made the steps with a parameter, from the earlier count to now."""
    return all(count.changes == (earlier or {}).get(key, Count()).changes for key, count in now.items())


def optimizer_facts(optimizer: torch.optim.Optimizer, parameters: Sequence[torch.Tensor]) -> OptimizerFacts:
    """Return what an optimizer says, after a step, of the tensors of one parameter."""
    return OptimizerFacts(
        second_moments(optimizer, parameters), step_count(optimizer, parameters), reach(optimizer, parameters)
    )


def step_count(optimizer: torch.optim.Optimizer, parameters: Sequence[torch.Tensor]) -> int | None:
    """Return how many steps one of torch's own optimizers has counted with the tensors of one parameter.

    None for one that counts none, such as SGD, where the tensors differ, and from 2²⁴ on: a count in single precision
    goes no further.
    """
    if not type(optimizer).__module__.startswith("torch.optim"):
        return None
    counts = {float((optimizer.state.get(parameter) or {}).get("step", math.nan)) for parameter in parameters}
    count = counts.pop() if len(counts) == 1 else math.nan
    return int(count) if 0 <= count < _LAST_COUNT else None


def reach(optimizer: torch.optim.Optimizer, parameters: Sequence[torch.Tensor]) -> Reach | None:
    """Return how far a step moves the tensors of one parameter at most; None where no bound is known.

    Where a scheduler changes the momentum too (OneCycleLR, CyclicLR), moments are older than the decays: there is none.
    """
    of_group = _REACHES.get(type(optimizer))
    if of_group is None or any(not parameter.dtype.is_floating_point for parameter in parameters):
        return None
    groups = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
    own = [groups[id(parameter)] for parameter in parameters]
    if any(key in group for group in own for key in ("max_momentum", "base_momentum")):
        return None
    per_rate = largest(of_group(group) for group in own)
    if per_rate is None:
        return None
    is_decoupled = [type(optimizer) is torch.optim.AdamW or group.get("decoupled_weight_decay") for group in own]
    decay = max(float(group["weight_decay"]) * bool(one) for group, one in zip(own, is_decoupled, strict=True))
    return Reach(per_rate, decay, max(torch.finfo(parameter.dtype).eps / 2 for parameter in parameters))


def second_moments(optimizer: torch.optim.Optimizer, parameters: Sequence[torch.Tensor]) -> Moments | None:
    """Return the sum of an optimizer's second moments for the tensors of one parameter, and their decay.

    They are summed where they lie. None for an optimizer without them or of an unknown kind, for one whose state is
    sharded, quantized or of less than single precision, and where the tensors have several decays.
    """
    rule = _MOMENTS.get(type(optimizer))
    if rule is None:
        return None
    name, decay_of = rule
    groups = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
    total, decays = 0.0, set()
    for parameter in parameters:
        moments = (optimizer.state.get(parameter) or {}).get(name)
        if type(moments) is not torch.Tensor or moments.is_meta or moments.dtype not in _EXACT:
            return None
        if moments.shape != parameter.shape:
            return None
        where = moments.detach().cpu() if moments.device.type == "mps" else moments.detach()  # mps has no doubles
        total += float(where.sum(dtype=torch.float64))
        decays.add(float(decay_of(groups[id(parameter)])))
    return Moments(total, decays.pop()) if len(decays) == 1 else None


def skipped(optimizer: torch.optim.Optimizer, options: Mapping[str, Any]) -> bool | None:
    """Return whether a scaler made an optimizer skip its step; None where only a device knows.

    Args:
        optimizer: in or right after its step.
        options: the arguments by name that the step was given.
    """
    found = getattr(optimizer, "found_inf", None)
    if found is None:
        return None if options.get("grad_scaler") is not None else False
    return bool(found) if getattr(found, "device", _CPU) == _CPU else None


def learning_rate(group: Mapping[str, Any]) -> float | None:
    """Return the learning rate of a group of parameters, which may be a tensor; None where there is none."""
    rate = group.get("lr")
    if isinstance(rate, torch.Tensor) and rate.numel() == 1:
        rate = rate.item()
    return float(rate) if isinstance(rate, int | float | np.number) else None


def _after(count: Count, one: _Optimizer, rates: float) -> Count:
    """Return the steps with a parameter after those that an optimizer has made."""
    if not one.steps and not one.uncounted:
        return count
    is_rated = math.isfinite(rates)
    return Count(
        steps=count.steps + one.steps,
        rates=count.rates + (rates if is_rated else 0.0),
        uncounted=count.uncounted + one.uncounted,
        unrated=count.unrated + (not is_rated),
        optimizer=one.number,
        changes=count.changes + (count.optimizer not in (None, one.number)),
    )


def _known_rate(rate: Any) -> float:
    """Return a learning rate; NaN where it is none, or lies on a device that would have to be waited for."""
    on_device = isinstance(rate, torch.Tensor) and rate.device != _CPU
    known = None if on_device else learning_rate({"lr": rate})
    return math.nan if known is None else known


def _members(optimizer: torch.optim.Optimizer) -> list[list[int]]:
    return [[id(parameter) for parameter in group["params"]] for group in optimizer.param_groups]


def _beta_2(group: Mapping[str, Any]) -> Any:
    return group["betas"][1]


def _adam(group: Mapping[str, Any]) -> float | None:
    return adam_reach(*map(float, group["betas"]))


def _rmsprop(group: Mapping[str, Any]) -> float | None:
    return None if group["centered"] else rmsprop_reach(float(group["alpha"]), float(group["momentum"]))


_CPU: Final = torch.device("cpu")
_LAST_COUNT: Final = 2**24
_EXACT: Final = (torch.float32, torch.float64)
_MOMENTS: Final[Mapping[type, tuple[str, Callable[[Mapping[str, Any]], Any]]]] = {
    **dict.fromkeys(
        (torch.optim.Adam, torch.optim.AdamW, torch.optim.NAdam, torch.optim.RAdam), ("exp_avg_sq", _beta_2)
    ),
    torch.optim.RMSprop: ("square_avg", lambda group: group["alpha"]),
    torch.optim.Adadelta: ("square_avg", lambda group: group["rho"]),
}
"""Optimizer → where its state has v_t = decay·v_{t−1} + (1 − decay)·g², and the decay of a group.

AMSGrad's maximum of v is beside it. Adamax holds a maximum of |g|, Adagrad a sum of g² without decay.
"""
_REACHES: Final[Mapping[type, Callable[[Mapping[str, Any]], float | None]]] = {
    **dict.fromkeys((torch.optim.Adam, torch.optim.AdamW), _adam),
    torch.optim.RMSprop: _rmsprop,
    torch.optim.Adagrad: lambda group: ADAGRAD_REACH,
}
"""Optimizer → how far a step moves a value of a group at most, as a multiple of the learning rate."""
