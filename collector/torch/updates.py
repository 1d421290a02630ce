"""What a step of an optimizer did to the parameters of a torch module, seen through torch's own hooks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils.hooks import RemovableHandle

from gatewatch.collector.arrays import Array
from gatewatch.collector.precision import RoundedBefore
from gatewatch.collector.runtime.signals import defer_sigint
from gatewatch.collector.schema import FieldValue
from gatewatch.collector.torch.call_contexts import is_recorded_for_later
from gatewatch.collector.torch.layers import as_array, has_values, trainable_parameters
from gatewatch.collector.torch.optimizers import (
    Counts,
    StepCounter,
    is_one_optimizer,
    learning_rate,
    optimizer_facts,
    skipped,
    steps_between,
)
from gatewatch.collector.torch.scaled_losses import is_scaled_step, scaled_losses
from gatewatch.collector.travel import NO_FACTS, OptimizerFacts, Travels, travel_fields
from gatewatch.collector.updates import (
    Measured,
    Name,
    input_shares,
    largest,
    passed_over_fields,
    steady,
    update_fields,
)

_StepArguments = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional arguments of an optimizer's step, the optimizer itself first, and those by name."""


class TorchUpdates:
    """`Updates` of a torch module: the first step that any optimizer makes with its parameters after `keep()`.

    The unclipped gradient is what the backward passes left in `.grad`. The clipped gradient is `.grad` as the step of
    the optimizer sees it: at its beginning or, where a closure computes the gradient within the step, when the closure
    returns. What cannot be known is left out:

    - the unclipped and the clipped gradient, where the optimizer evaluates its closure several times (LBFGS);
    - the unclipped gradient, under a gradient scaler, because it contains the scaler's factor;
    - the unclipped gradient, in one of several processes, because it is that of this process alone;
    - the clipped gradient, where the optimizer itself divides by the scaler's factor (fused optimizers);
    - the update, for a parameter that has no gradient (`.grad is None`), because the optimizer passes it over; if its
      layer had one before, that is recorded as no step;
    - the whole update, for a parameter that is sharded over devices (a DTensor), and for a step that torch.compile
      runs, that is captured as a CUDA graph, or that a scaler skips.

    The learning rate is that of the parameter group when the step begins and ends. What a scheduler sets after the step
    applies to the next one.

    The travel of a parameter needs one copy of it, of the capture before. Its steps are counted by the hooks on
    optimizers; they, and the sum of their learning rates, are left out where a scaler on another device may have made
    the optimizer skip one. What the optimizer says of a parameter (second moments, count of steps, reach) is left out
    where another optimizer has made a step since the record before.

    If a script scales the loss itself, without a scaler, and unscales the gradients itself, that looks like clipping:
    the unclipped gradient is then the scaled one. Between `measure()` and the next `keep()` the parameters have no
    hook; the two on optimizers count steps from `watch()` to `release()`.

    Args:
        module: the module whose parameters are watched.
        guarded_and_charged: the context in which the hooks work. No error leaves it, and it counts the time against
            the budget.
        warn_once: logs what cannot be recorded, once for each topic: text, topic.
    """

    def __init__(
        self,
        module: nn.Module,
        guarded_and_charged: Callable[[str], AbstractContextManager[None]],
        warn_once: Callable[[str, str], None] = lambda text, topic: None,
    ) -> None:
        self._module = module
        self._guarded_and_charged = guarded_and_charged
        self._warn_once = warn_once
        self._on_optimizers: list[RemovableHandle] = []
        self._on_parameters: list[RemovableHandle] = []
        self._watched: dict[Name, list[nn.Parameter]] = {}
        self._watched_ids: set[int] = set()
        self._whole: dict[int, torch.Tensor] = {}
        self._steps: dict[Name, _Step] = {}
        self._done: set[int] = set()
        self._stepped: set[int] = set()
        self._used: set[str] = set()
        self._named: set[str] = set()
        self._scaled_before = 0
        self._counter = StepCounter()
        self._travels: Travels[Counts] = Travels()
        self._kernel_shares: Mapping[str, Array] = {}
        self._rounded = RoundedBefore()

    def watch(self) -> None:
        """Count the steps of optimizers, and look at none."""
        with defer_sigint():
            self._forget()
            by_name = trainable_parameters(self._module)
            self._watched = {name: some for name, some in by_name.items() if all(map(has_values, some))}
            self._watched_ids = {id(parameter) for some in self._watched.values() for parameter in some}
            self._counter.keep_only(self._watched_ids)
            self._travels.keep_only(self._watched)
            self._rounded.begin((name, [as_array(one) for one in some]) for name, some in self._watched.items())
            if not self._on_optimizers:
                self._on_optimizers.append(register_optimizer_step_pre_hook(self._before))
                self._on_optimizers.append(register_optimizer_step_post_hook(self._after))
                scaled_losses.watch()

    def keep(self) -> None:
        """Look at the next step. What backward passes have left for it since an earlier `keep()` is not forgotten."""
        with defer_sigint():
            whole = self._whole if self._on_parameters else {}
            if not self._on_parameters:
                self._scaled_before = scaled_losses.count
            self.watch()
            self._whole = {key: gradient for key, gradient in whole.items() if key in self._watched_ids}
            for parameters in self._watched.values():
                for parameter in parameters:
                    if parameter.is_leaf:
                        handle = parameter.register_post_accumulate_grad_hook(self._backward)  # type: ignore[no-untyped-call]  # torch is typed in part
                        self._on_parameters.append(handle)

    def stepped(self) -> Collection[int]:
        """Return which optimizers have made a step with the watched parameters since the last call: a number each."""
        stepped, self._stepped = self._stepped, set()
        return stepped

    def rate(self) -> float | None:
        """Return the learning rate of the step, exact to 1 %: of the recurrent parameters, or of all if there are none.

        If they have several rates, it is the largest. None where one of them jumped within the step, or is not known.
        """
        rates = {name: step.rate for name, step in self._steps.items() if step.after is not None and step.used}
        return largest([rate for (_, param), rate in rates.items() if param == "recurrent"] or rates.values())

    def measure(self) -> Measured:
        """Return what the step did: parameter → fields of its update. Where there was none, go on looking."""
        steps = {name: step for name, step in self._steps.items() if step.after is not None}
        if steps:
            self._forget()
            shares = {name[0]: step.shares() for name, step in steps.items() if name[1] == "kernel"}
            self._kernel_shares = {layer: share for layer, share in shares.items() if share is not None}
        return {
            name: {**self._rounded.added(name, step.fields()), **self._travel(name, step)}
            for name, step in steps.items()
        }

    def kernel_shares(self) -> Mapping[str, Array]:
        """Return layer → share of each input in the squared norm of its kernel's gradient, as `measure()` found it."""
        return self._kernel_shares

    def recorded(self, names: Collection[Name]) -> None:
        """Count the travel of these parameters from what was measured last of them."""
        self._travels.recorded(names)
        self._rounded.recorded(names)

    def release(self) -> None:
        """Remove the hooks and forget what they saw."""
        with defer_sigint():
            self._forget()
            for handle in self._on_optimizers:
                handle.remove()
            if self._on_optimizers:
                scaled_losses.release()
            self._on_optimizers, self._watched, self._watched_ids, self._stepped = [], {}, set(), set()
            self._counter, self._travels, self._rounded = StepCounter(), Travels(), RoundedBefore()

    def _travel(self, name: Name, step: _Step) -> dict[str, FieldValue]:
        """Return what happened to a parameter since its latest record, and hold what it is now."""
        after, counts = step.after or [], step.counts
        before, earlier = self._travels.latest(name) or (None, None)
        steps, rate_sum = steps_between(earlier, counts)
        facts = step.facts if is_one_optimizer(earlier, counts) else NO_FACTS
        self._travels.measured(name, after, counts)
        return travel_fields(before, after, steps=steps, rate_sum=rate_sum, facts=facts)

    def _forget(self) -> None:
        """End the look at a step."""
        with defer_sigint():
            for handle in self._on_parameters:
                handle.remove()
            self._on_parameters, self._whole, self._steps, self._done = [], {}, {}, set()

    def _backward(self, parameter: torch.Tensor) -> None:
        """Copy the gradient: the last of several backward passes before a step leaves the sum of all."""
        if id(parameter) in self._done or is_recorded_for_later():
            return
        with self._guarded_and_charged("hooks"):
            if parameter.grad is not None:
                self._whole[id(parameter)] = parameter.grad.detach().clone()

    def _before(
        self, optimizer: torch.optim.Optimizer, arguments: tuple[Any, ...], options: dict[str, Any]
    ) -> _StepArguments | None:
        if is_recorded_for_later() or not self._on_parameters:
            return None
        with self._guarded_and_charged("hooks"):
            found = getattr(optimizer, "found_inf", None)
            if found is not None and bool(found):  # a scaler has marked a gradient as not finite
                return None
            unscales = getattr(optimizer, "grad_scale", None) is not None or options.get("grad_scaler") is not None
            is_scaled = scaled_losses.count != self._scaled_before or is_scaled_step()
            is_whole = not (unscales or is_scaled or _is_one_of_several())
            steps = []
            for name, parameters, rate in self._of(optimizer):
                if name not in self._steps or self._steps[name].after is None:  # where it is, that step has failed
                    self._steps[name] = _Step(parameters, _copies(parameters) or [], rate, (not unscales, is_whole))
                    steps.append(self._steps[name])
            with_closure = _replace_closure(arguments, options, lambda closure: self._seen(closure, optimizer, steps))
            if with_closure is None:
                self._read_gradients(steps)
            return with_closure
        return None

    def _seen(
        self, closure: Callable[..., Any], optimizer: torch.optim.Optimizer, steps: Sequence[_Step]
    ) -> Callable[..., Any]:
        """Return a closure that does the same, after which the gradients are read."""
        evaluations = 0

        def evaluate(*arguments: Any, **options: Any) -> Any:
            nonlocal evaluations
            loss = closure(*arguments, **options)
            with self._guarded_and_charged("hooks"):
                evaluations += 1
                if evaluations == 1:
                    self._read_gradients(steps)
                elif evaluations == 2:
                    for step in steps:
                        step.whole = step.clipped = None
                    kind = type(optimizer).__name__
                    self._warn_once(
                        f"gradients of what {kind} trains are not recorded, but weights and updates are: it evaluates "
                        "its closure several times in a step",
                        f"closure of {kind}",
                    )
            return loss

        return evaluate

    def _read_gradients(self, steps: Sequence[_Step]) -> None:
        """Copy the gradients that the optimizer is about to use."""
        for step in steps:
            reads_clipped, reads_whole = step.reads
            step.used = _has_gradient(step.parameters)
            clipped = _copies([parameter.grad for parameter in step.parameters])
            whole = _copies([self._whole.get(id(parameter)) for parameter in step.parameters])
            if clipped is None or (_is_zero(clipped) and whole is not None and not _is_zero(whole)):
                whole = None  # zero_grad was called since that backward pass
            step.clipped, step.whole = clipped if reads_clipped else None, whole if reads_whole else None

    def _after(self, optimizer: torch.optim.Optimizer, arguments: Any, options: Any) -> None:
        if is_recorded_for_later():
            return
        with suppress(Exception):  # of an optimizer with groups of its own kind; in every step, so nothing dearer
            groups = optimizer.param_groups
            if any(id(parameter) in self._watched_ids for group in groups for parameter in group["params"]):
                self._stepped.add(id(optimizer))
                if not (is_skipped := skipped(optimizer, options)):
                    self._counter.note(optimizer, may_skip=is_skipped is None)
        if not self._on_parameters:
            return
        with self._guarded_and_charged("hooks"):
            unused = set()
            for name, parameters, rate in self._of(optimizer):
                step = self._steps.get(name)
                if step is None or step.after is not None:
                    continue
                if step.used is None:
                    step.used = _has_gradient(parameters)
                if step.used:
                    self._used.add(name[0])
                    self._done.update(map(id, parameters))
                else:  # the optimizer has passed it over
                    unused.add(name[0])
                if name[0] in self._used:
                    step.after, step.rate = _copies(parameters), steady(step.rate, rate)
                    step.counts = self._counter.counts(parameters)
                    with suppress(Exception):  # of a state that somebody has exchanged
                        step.facts = optimizer_facts(optimizer, parameters)
                else:
                    del self._steps[name]
            if layers := sorted(unused - self._named):
                self._named.update(layers)
                self._warn_once(
                    f"no gradient reaches {', '.join(map(repr, layers))}: no update is recorded while that is so; "
                    "a layer that forward uses has a gradient unless it is detached",
                    f"no gradient: {layers}",
                )

    def _of(self, optimizer: torch.optim.Optimizer) -> Iterator[tuple[Name, list[nn.Parameter], float | None]]:
        """Yield name, parameters and learning rate of the watched parameters that the optimizer updates."""
        groups = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
        for name, parameters in self._watched.items():
            if all(id(parameter) in groups for parameter in parameters):
                yield name, parameters, largest(learning_rate(groups[id(parameter)]) for parameter in parameters)


@dataclass(slots=True)
class _Step:
    """A step of an optimizer, as far as it has come.

    Attributes:
        parameters: one parameter of the records, which may be several tensors.
        before, after: their values.
        rate: the learning rate.
        reads: whether the clipped and the unclipped gradient can be known.
        used: whether there is a gradient for it; None where that was not seen before the step.
        clipped, whole: the gradient as the optimizer uses it, and before clipping.
        counts: the steps so far.
        facts: what the optimizer says of it after the step.
    """

    parameters: Sequence[nn.Parameter]
    before: list[Array]
    rate: float | None
    reads: tuple[bool, bool]
    used: bool | None = None
    clipped: list[Array] | None = None
    whole: list[Array] | None = None
    after: list[Array] | None = None
    counts: Counts = field(default_factory=dict)
    facts: OptimizerFacts = NO_FACTS

    def fields(self) -> dict[str, FieldValue]:
        """Return what is recorded of it."""
        after = self.after or ()
        if not self.used:
            return passed_over_fields(after)
        return {**update_fields(self.before, after, gradient=self.whole, clipped=self.clipped), "optimizer_steps": 1}

    def shares(self) -> Array | None:
        """Return the share of each column of one weight in the squared norm of its gradient; None where unknown."""
        if not self.used or self.clipped is None or len(self.clipped) != 1 or self.clipped[0].ndim != 2:
            return None
        return input_shares(self.clipped[0])


def _replace_closure(
    arguments: tuple[Any, ...], options: Mapping[str, Any], replace: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> _StepArguments | None:
    """Return the arguments of an optimizer's step with another closure; None where they have none."""
    if len(arguments) > 1 and callable(arguments[1]) and not isinstance(arguments[1], nn.Module):
        return (arguments[0], replace(arguments[1]), *arguments[2:]), dict(options)
    closure = options.get("closure")
    return (arguments, {**options, "closure": replace(closure)}) if callable(closure) else None


def _copies(tensors: Sequence[torch.Tensor | None]) -> list[Array] | None:
    """Return copies of the values of tensors; None where a tensor is missing."""
    if any(tensor is None for tensor in tensors):
        return None
    return [np.array(as_array(tensor)) for tensor in tensors]


def _has_gradient(parameters: Sequence[nn.Parameter]) -> bool:
    return any(parameter.grad is not None for parameter in parameters)


def _is_zero(arrays: Sequence[Array] | None) -> bool:
    return arrays is not None and not any(array.any() for array in arrays)


def _is_one_of_several() -> bool:
    """Return whether other processes train with this one: gradients are averaged after the backward pass."""
    several = torch.distributed
    return several.is_available() and several.is_initialized() and several.get_world_size() > 1
