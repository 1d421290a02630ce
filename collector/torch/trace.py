"""What the recurrent layers of a torch module do with a batch.

A copy of the module is called, so that the training's own stays as it is. In the copy torch's own forward of each
recurrent module notes what it is called with; NumPy replays that for the gates, and the module's own outputs and states
are what the replay is held to.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from gatewatch.collector.arrays import Array
from gatewatch.collector.cells import Cell
from gatewatch.collector.checks import check_framework, explain_mismatch, mistaken_model
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.runtime.signals import allow_sigint, defer_sigint
from gatewatch.collector.text import describe_exception, safe_repr
from gatewatch.collector.torch.call_contexts import forwards_passed_on, isolated, replaced_forward, with_initial_state
from gatewatch.collector.torch.calls import Call, read_call, read_weights, replay
from gatewatch.collector.torch.inputs import as_inputs, input_mismatch_error, tensors
from gatewatch.collector.torch.kept_states import without_kept_states
from gatewatch.collector.torch.layers import (
    RecurrentLayer,
    parameters,
    recurrent_layers,
    suffixes,
    why_not_called,
    why_not_replayed,
)
from gatewatch.collector.torch.outside import outside_restored
from gatewatch.collector.torch.probe_loss import ProbeLoss
from gatewatch.collector.torch.twin import twin_of
from gatewatch.collector.trace import MOST_CALLS, Trace


def gates(module: nn.Module, *inputs: Any) -> dict[str, dict[str, Array]]:
    """Return the gates of a torch module's recurrent layers for a batch, without training.

    A copy of the module is called once, in inference mode.

    Args:
        module: any module with `nn.LSTM`, `nn.GRU` or cells of them in it, or one of these itself.
        inputs: as the module takes them: packed sequences and initial states too.

    Returns:
        Layer name → gate → array (batch, time, units), whatever `batch_first` says, float32 or as the module computes.
        LSTM gates: input, forget, candidate, cell, output, hidden; GRU gates: update (which keeps the old state),
        reset, candidate, hidden. The hidden state of a projected LSTM has its `proj_size` units. Position t is the
        t-th element of the input, whichever way the cell ran; what is past the end of a packed sequence is NaN.

        A layer is named by the path of its module and torch's own suffix: `policy.lstm/l0`, `policy.lstm/l0_reverse`;
        `l0` where the module is an LSTM itself. A cell is named by its path. The steps of a loop over time are side
        by side in time; a module that is called again otherwise has `path/l0#2`, and so on.

    Raises:
        ConfigError: no layer of the module is recurrent, the inputs do not fit the module, it cannot be copied, or no
            recurrent layer can be replayed exactly. Where only some cannot, a warning names them.
        Exception: whatever else the module's forward raises.
    """
    check_framework("module", module, "torch", "gates")
    if not isinstance(module, nn.Module):
        raise ConfigError(f"module={safe_repr(module)}: must be a torch.nn.Module{mistaken_model(module)}")
    layers = recurrent_layers(module, required=True)
    explain = partial(input_mismatch_error, "input", inputs)
    return trace(module, lambda twin: twin(*as_inputs(inputs)), layers, explain=explain).gates()


def trace(
    module: nn.Module,
    call: Callable[[Any], Any],
    layers: Mapping[str, RecurrentLayer],
    *,
    states: Any = None,
    explain: Callable[[nn.Module, Exception], ConfigError | None] = lambda twin, error: None,
    names: Collection[str] = (),
    loss: ProbeLoss | None = None,
    afresh: bool = False,
) -> Trace:
    """Call a copy of a module, without training, and keep what its recurrent layers do.

    Args:
        module: the module. It is not called, nor changed in any way.
        call: calls the copy, or a method of it, with inputs that the copy may change: `lambda twin: twin(x.clone())`.
        layers: name → layer, as `recurrent_layers` gives them; the others are left alone.
        states: what the recurrent modules begin with that are given no state: see `with_initial_state`.
        explain: the copy, an error of its call → what is wrong with the inputs; None where they are not why it failed.
        names: of the methods that `call` calls, where it is not the copy itself.
        loss: computed of what `call` returns.
        afresh: whether recurrent modules begin with zeros where the module has kept a state for them.

    Raises:
        ConfigError: the inputs do not fit the module, as `explain` says; it has yet to be called for the first time,
            which makes its parameters; it cannot be copied, see `twin_of`; the states are for no module of `layers`.
        RuntimeError: its forward waits for other processes.
        Exception: whatever the call raises.
    """
    if any(is_lazy(parameter) for parameter in parameters(module)):
        raise ConfigError(
            f"the module {type(module).__name__} has lazy parameters: call it once before it is looked at"
        )
    passed_on = forwards_passed_on(layer.module for layer in layers.values() if layer.cell is not None)
    with (
        defer_sigint(),
        isolated(),
        passed_on,
        twin_of(module) as twin,
        nullcontext(None) if loss is None else loss.copied(twin) as score,
        outside_restored(twin, names) as left_out,
        allow_sigint(),
    ):
        own = {name: replace(layer, module=twin.copies[id(layer.module)]) for name, layer in layers.items()}
        with (
            explain_mismatch(partial(explain, twin.module)),
            with_initial_state(own, states),
            without_kept_states(twin.module, own) if afresh else nullcontext(),
            record_calls(own) as result,
        ):
            outputs = contextvars.copy_context().run(call, twin.module)
        if score is not None:  # its calls of layers are not the module's
            result.loss, result.loss_error = score(outputs)
    result.shared = {**twin.shared, **left_out}
    return result


@contextmanager
def record_calls(layers: Mapping[str, RecurrentLayer]) -> Iterator[Trace]:
    """Keep what recurrent layers do with whatever they are called with. The calls are not changed in any way.

    The trace is filled when the context is left.

    The steps of a cell in a loop, or of a module that is called with one step and the same batch again and again, are
    side by side in time. A module that is called again otherwise has `name#2`, and so on up to 8.

    Args:
        layers: name → layer, as `recurrent_layers` gives them.
    """
    result = Trace()
    recorders: dict[nn.Module, _CallRecorder] = {}
    runs: list[_Run] = []
    for name, layer in layers.items():
        if layer.offers_history:
            continue
        if layer.cell is None:
            result.unreplayed[name] = why_not_replayed(layer.module)
        else:
            recorders.setdefault(layer.module, _CallRecorder(layer.cell, result, runs)).names[layer.suffix] = name
    with ExitStack() as stack:
        for module, recorder in recorders.items():
            stack.enter_context(replaced_forward(module, recorder))
        yield result
    for run in runs:
        _record(run, result)
    for name, layer in layers.items():
        if layer.offers_history:
            result.ask(name, layer.module)
        elif layer.module in recorders and not recorders[layer.module].called:
            result.unreplayed[name] = why_not_called(layer.module)


@dataclass(slots=True)
class _Run:
    """One call of a module, or the steps of a loop over time.

    Attributes:
        module: what was called.
        names: suffix → name, of each layer that is to be recorded.
        cell: what it is.
        weights: of each layer, as they were at the first call.
        calls: what it was called with.
    """

    module: nn.Module
    names: Mapping[str, str]
    cell: Cell
    weights: list[Any]
    calls: list[Call]

    def goes_on_with(self, call: Call) -> bool:
        last = self.calls[-1]
        return last.is_step and call.is_step and last.x.shape == call.x.shape


class _CallRecorder:
    """The forward of one module: torch's own, whose calls it notes."""

    def __init__(self, cell: Cell, result: Trace, runs: list[_Run]) -> None:
        self._cell = cell
        self.names: dict[str, str] = {}
        self.called = False
        self._result = result
        self._runs = runs
        self._own: list[_Run] = []
        self._open = True

    def __call__(self, module: nn.Module, own: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        output = own(*arguments, **options)
        if self._open:
            self.called = True
            try:
                self._note(module, arguments, options, output)
            except Exception as error:
                self._leave_out(f"its call cannot be read: {describe_exception(error)}", *self.names.values())
        return output

    def _note(self, module: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any], output: Any) -> None:
        if any(map(torch._C._functorch.is_batchedtensor, tensors((arguments, output)))):
            self._leave_out("it is called inside torch.vmap, where there are no values", *self.names.values())
            return
        if isinstance(module, nn.RNNBase) and module.training and module.dropout and module.num_layers > 1:
            self._leave_out("its dropout is in play", *self.names.values())
            return
        call = read_call(module, arguments, options, output)
        if self._own and self._own[-1].goes_on_with(call):
            self._own[-1].calls.append(call)
        elif len(self._own) == MOST_CALLS:
            self._leave_out(f"the module is called more than {MOST_CALLS} times", next(iter(self.names.values())))
        else:
            number = len(self._own) + 1
            names = {suffix: _numbered(name, number) for suffix, name in self.names.items()}
            self._own.append(_Run(module, names, self._cell, read_weights(module, self._cell), [call]))
            self._runs.append(self._own[-1])

    def _leave_out(self, reason: str, *names: str) -> None:
        """Record neither this call nor what comes after it."""
        self._open = False
        self._result.unreplayed.update({_numbered(name, len(self._own) + 1): reason for name in names})


def _record(run: _Run, result: Trace) -> None:
    directions = 2 if getattr(run.module, "bidirectional", False) else 1
    try:
        replayed, is_exact = replay(run.calls, run.cell, run.weights, directions)
    except Exception as failure:
        reason = f"its replay failed: {describe_exception(failure)}"
    else:
        if is_exact:
            by_suffix = dict(zip(suffixes(run.module), replayed, strict=True))
            result.layers.update({name: by_suffix[suffix] for suffix, name in run.names.items()})
            return
        reason = f"the replay of its module differs from the module's own output by {replayed[0].error:.2g}"
    result.unreplayed.update(dict.fromkeys(run.names.values(), reason))


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}#{number}"
