"""What a module is fed in the training: seen where it is called, in the steps that are looked at."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from gatewatch.collector.feed.recorder import FeedRecorder
from gatewatch.collector.runtime.signals import defer_sigint
from gatewatch.collector.torch.call_contexts import is_recorded_for_later
from gatewatch.collector.torch.inputs import as_inputs, tensors
from gatewatch.collector.torch.layers import COMPILED, bare, has_values, layer_name, suffixes, walk, wrapped
from gatewatch.collector.torch.module_calls import module_calls

_STATES: Final = re.compile(r"hx?|hc|cx|[hc]_?[0n]|hiddens?|memory|mems?|carry|.*states?|(.*_)?hidden(_.*)?|states?_.*")
"""Arguments of a forward that bring the memory of a layer, not the feed."""
_TARGETS: Final = re.compile(r"labels?|targets?")


class TorchFeed:
    """Shows a `FeedRecorder` the first batch that the module is called with in training.

    That is a call of the module itself (not of a part or a method) in training mode and with gradients; in a phase
    without training any call. The recurrent layers tell by what they are given in it whether time is the first
    dimension, and which of them is given the feed as it is.

    Args:
        module: whose calls are seen.
        recorder: looks at them.
        is_training: whether it is trained.
    """

    def __init__(self, module: nn.Module, recorder: FeedRecorder, *, is_training: bool) -> None:
        self._module, self._recorder, self._is_training = module, recorder, is_training
        self._is_watching = False
        self._layers: dict[nn.Module, str] = {}
        self._time_first: bool | None = None
        self._call: _Call | None = None

    def watch(self) -> None:
        """Show the next batch."""
        if not self._is_watching:
            with defer_sigint():
                self._is_watching = True
                module_calls.watch(self._module, self._see)

    def release(self) -> None:
        """Show no more."""
        if self._call is not None and self._time_first is None:  # no layer has told
            self._time_first = False
        self._end_call()
        if self._is_watching:
            with defer_sigint():
                self._is_watching = False
                module_calls.release(self._module, self._see)

    def _see(self, module: nn.Module, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> None:
        """Look at a call of the module."""
        if not self._recorder.is_wanted or (self._is_training and not (module.training and torch.is_grad_enabled())):
            return
        with self._recorder.looking():
            if is_recorded_for_later() or not _have_values((arguments, options)):
                return
            own = bare(module)
            self._call = call = _Call(*_by_role(own, arguments, options))
            if isinstance(own, nn.RNNBase):
                self._time_first = not own.batch_first and not call.add_batch()
            elif call.main is None or call.main.dim() < 3 or wrapped(module) == COMPILED:  # whose parts tell nobody
                self._time_first = False
            if self._time_first is None:
                call.copy()
            else:
                self._show(call)
            if isinstance(own, nn.RNNBase):
                self._recorder.note_layer(layer_name("", own, suffixes(own)[0]))
            else:
                self._watch_layers()

    def _watch_layers(self) -> None:
        parts = [(path, part) for path, part in walk(self._module) if part is not self._module]
        self._end_call(self._call)
        with defer_sigint():
            self._layers = {part: path for path, part in parts if isinstance(part, (nn.RNNBase, nn.RNNCellBase))}
            for layer in self._layers:
                module_calls.watch(layer, self._see_layer)

    def _see_layer(self, layer: nn.Module, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> None:
        """Look at what a layer is given in the call that was seen."""
        call = self._call
        if call is None:
            return
        with self._recorder.looking():
            x = arguments[0] if arguments else options.get("input")
            if self._time_first is None:
                self._time_first = _is_time_first(layer, x, call.main)
                self._show(call)
            if isinstance(layer, nn.RNNBase) and call.is_given_to(x):
                self._recorder.note_layer(layer_name(self._layers[layer], layer, suffixes(layer)[0]))
            self._end_call()

    def _show(self, call: _Call) -> None:
        self._recorder.see(call.inputs, call.targets, time_major=bool(self._time_first))

    def _end_call(self, call: _Call | None = None) -> None:
        """Wait for no layer any more, at least not since an earlier call."""
        with defer_sigint():
            for layer in self._layers:
                module_calls.release(layer, self._see_layer)
            self._layers, self._call = {}, call


class _Call:
    """A call of the module: inputs, targets, and the input that is sequences, or the largest."""

    def __init__(self, inputs: Any, targets: Any) -> None:
        self.inputs, self.targets = inputs, targets
        self.main = main = _main(inputs)
        self._version = None if main is None or main.is_inference() else main._version

    def copy(self) -> None:
        """Copy inputs and targets, which the module may change before they are read."""
        self.inputs, self.targets = as_inputs((self.inputs, self.targets))

    def add_batch(self) -> bool:
        """Give a recurrent layer's sequence without a batch one; return whether it is such a sequence."""
        if self.main is None or self.main.dim() != 2:
            return False
        self.inputs = self.main[None]
        return True

    def is_given_to(self, x: Any) -> bool:
        """Return whether a layer is given the same memory: as it is, or with time and batch the other way round."""
        main = self.main
        if main is None or not isinstance(x, Tensor) or self._version is None or self._version != main._version:
            return False
        is_same = x.data_ptr() == main.data_ptr() and x.numel() == main.numel() and x.dtype == main.dtype
        return is_same and x.dim() == main.dim() == 3 and x.shape[2] == main.shape[2]


def _by_role(module: nn.Module, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return the inputs and the targets among the arguments of a forward; what is a state is neither."""
    try:
        bound = inspect.signature(module.forward).bind(*arguments, **options)
    except (TypeError, ValueError):
        named = [*((str(number), one) for number, one in enumerate(arguments)), *options.items()]
    else:
        named = []
        for name, value in bound.arguments.items():
            kind = bound.signature.parameters[name].kind
            if kind is inspect.Parameter.VAR_POSITIONAL:
                named += [(name, one) for one in value]
            elif kind is inspect.Parameter.VAR_KEYWORD:
                named += sorted(value.items())
            else:
                named.append((name, value))
    inputs = [value for name, value in named if not _STATES.fullmatch(name) and not _TARGETS.fullmatch(name)]
    targets = [value for name, value in named if _TARGETS.fullmatch(name)]
    return inputs[0] if len(inputs) == 1 else tuple(inputs), targets[0] if len(targets) == 1 else targets or None


def _main(inputs: Any) -> Tensor | None:
    if isinstance(inputs, PackedSequence):
        return None
    return max(tensors(inputs), key=lambda tensor: min(tensor.dim(), 3), default=None)


def _have_values(nest: Any) -> bool:
    return all(has_values(one) and not torch._C._functorch.is_functorch_wrapped_tensor(one) for one in tensors(nest))


def _is_time_first(layer: Any, x: Any, main: Tensor | None) -> bool:
    """Return whether time is the first dimension of the module's input, by what a recurrent layer is given."""
    if main is None:
        return False
    first, second = main.shape[:2]
    if isinstance(x, PackedSequence):
        size = int(x.batch_sizes[0])
        return first != size == second
    if not isinstance(x, Tensor):
        return False
    if isinstance(layer, nn.RNNCellBase):
        return first != x.shape[0] == second
    if x.dim() != 3:
        return False
    is_turned = tuple(x.shape[:2]) != (first, second)
    if first == second:  # the strides tell
        is_turned = x.data_ptr() == main.data_ptr() and x.stride() != main.stride()
    return bool(layer.batch_first) if is_turned else not layer.batch_first
