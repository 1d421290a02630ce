"""What is recorded of a Keras model with its run: its layers, its parameters, its summary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gatewatch.collector.keras.isolation import isolated
from gatewatch.collector.runtime.error_guard import has_attribute, safe_get

_LONGEST_SUMMARY: Final = 16_384


def describe(model: Any, layers: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is recorded of a model with its run; None for what it does not have, or raises when it is read."""
    for named in (model, *layers.values()):
        safe_get(named, "name")  # the walks go on without a name; that it raises is said here
    with isolated(model):
        return {
            "layers": {path: _describe_layer(layer) for path, layer in layers.items()},
            "parameters": safe_get(model, "count_params()", lambda: int(model.count_params())) if model.built else None,
            "summary": safe_get(model, "summary()", lambda: _summary(model))
            if has_attribute(model, "summary")
            else None,
        }


def _summary(model: Any) -> str:
    lines: list[str] = []
    model.summary(line_length=100, print_fn=lambda text, **_: lines.append(str(text)))
    return "\n".join(lines)[:_LONGEST_SUMMARY]


def _describe_layer(layer: Any) -> dict[str, Any]:
    cell = safe_get(layer, "cell")
    return {
        "type": type(layer).__name__,
        **{name: safe_get(cell, name) for name in ("units", "dropout")},
        **{name: safe_get(layer, name) for name in ("go_backwards", "stateful")},
    }
