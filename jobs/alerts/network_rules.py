"""The rules about what a network does: its gates, its gradients, its parameters."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from gatewatch.collector.cells import MEMORY_GATES
from gatewatch.collector.schema import GATE_DERIVED, GATE_SCORES, GATE_STATS, LAYER_UPDATES
from gatewatch.jobs.alerts.rule import GATE, LAYER, PARAM, Condition, InGrafana, Quantity, Rule
from gatewatch.jobs.thresholds import ALARM_CAPTURES, ALARM_WITHIN, GRADIENT_EXPLODED_ALARM, GRADIENT_VANISHED

_GATES: Final = MappingProxyType({"gate": tuple(sorted(MEMORY_GATES))})

NETWORK_RULES: Final = (
    Rule(
        "anomaly",
        "a gate behaves as it has not before",
        "Look at the features that it names as the reason, then at what the training did at that step.",
        Quantity(
            GATE_SCORES,
            "anomaly_score",
            "anomaly score",
            GATE,
            where={"detector": ("consensus",)},
            unless={"detector": "checks"},  # which raise the consensus too, and have a rule of their own
        ),
        Condition(above=1.0, for_captures=ALARM_CAPTURES, within=ALARM_WITHIN),
        InGrafana("anomalies", "Anomaly score"),
    ),
    Rule(
        "gate_not_finite",
        "NaN or Inf in a gate",
        "Nothing that it learns from that step on is usable: go back to the last checkpoint before it.",
        Quantity(GATE_STATS, "nan_count", "values that are not finite", GATE, "not_finite"),
        Condition(above=0.0, within=3, severity="critical"),
        InGrafana("learning", "Values that are not finite"),
        while_live="Stop the run.",
    ),
    Rule(
        "update_not_finite",
        "NaN or Inf in weights or gradients",
        "The weights are lost from that step on: look for the first batch whose loss or gradient is not finite.",
        Quantity(LAYER_UPDATES, "nan_count", "values that are not finite", PARAM, "not_finite"),
        Condition(above=0.0, within=3, severity="critical"),
        InGrafana("learning", "Values that are not finite"),
        while_live="Stop the run.",
    ),
    Rule(
        "forget_gate_shut",
        "the gate that keeps the memory has collapsed shut",
        "The layer reacts to the newest bar alone: look at the learning rate, and at what changed in the inputs there.",
        Quantity(GATE_STATS, "mean", "mean activation", GATE, where=_GATES),
        Condition(below=0.05, recovery=0.08, for_captures=3, after_inside=True, severity="critical"),
        InGrafana("gates", "Memory timescale"),
    ),
    Rule(
        "forget_gate_open",
        "the gate that keeps the memory is stuck open",
        "The layer keeps all and takes in little: see whether its cell state grows and its input gate still moves.",
        Quantity(GATE_STATS, "mean", "mean activation", GATE, where=_GATES),
        Condition(above=0.995, recovery=0.99, for_captures=3, after_inside=True),
        InGrafana("gates", "Memory timescale"),
    ),
    Rule(
        "gradient_vanishing",
        "the gradient has vanished",
        "The layer learns nothing: look at saturated gates above it, at masking, at a loss that has become constant.",
        Quantity(LAYER_UPDATES, "gradient_norm", "gradient norm", PARAM),
        Condition(below=GRADIENT_VANISHED, recovery=1e-6, for_captures=3),
        InGrafana("learning", "Gradient norm, before and after clipping"),
    ),
    Rule(
        "gradient_exploding",
        "the gradient explodes",
        "Look at the batch of that step for an outlier (a gap, a split, a bad tick); clip the gradient's norm.",
        Quantity(
            LAYER_UPDATES,
            "gradient_norm",
            "gradient norm, as a multiple of its median so far",
            PARAM,
            "times_median",
            floor=GRADIENT_VANISHED,
        ),
        Condition(above=GRADIENT_EXPLODED_ALARM, recovery=20.0, within=3, severity="critical"),
        InGrafana("learning", "Gradient norm, before and after clipping", lookback_seconds=3600),
    ),
    Rule(
        "layer_frozen",
        "a layer stands still while others learn",
        "See that the optimizer has the layer's parameters, and that no gradient is stopped on the way to it.",
        Quantity(LAYER_UPDATES, "update_norm", "norm of the layer's update", LAYER, "frozen"),
        Condition(below=1e-12, for_captures=3),
        InGrafana("learning", "Update ratio"),
    ),
    Rule(
        "units_dead",
        "more than half of a layer's units are dead",
        "The layer works with a fraction of its size: look at its units, the learning rate and the inputs' scale.",
        Quantity(
            GATE_STATS, "dead_units", "share of the units", GATE, "share_of_units", "share", where={"gate": ("hidden",)}
        ),
        Condition(above=0.5, recovery=0.4, for_captures=3),
        InGrafana("learning", "Dead units"),
    ),
    Rule(
        "generalisation_gap",
        "the validation loss runs away from the training loss",
        "The network learns its training prices by heart, however its gates look: go back to the lowest val_loss.",
        Quantity(
            GATE_DERIVED, "generalisation_gap", "gap, relative to the training loss", where={"layer": ("_model",)}
        ),
        Condition(above=0.5, recovery=0.4, for_captures=2),
        InGrafana("learning", "Generalisation gap", lookback_seconds=6 * 3600),
    ),
)
