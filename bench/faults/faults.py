"""All faults, by name."""

from __future__ import annotations

from typing import Final

from bench.faults import feed_faults, optimizer_faults, state_faults, weight_faults
from bench.faults.fault import Fault

FAULTS: Final[dict[str, type[Fault]]] = {
    "forget-shut": weight_faults.ForgetShut,
    "forget-open": weight_faults.ForgetOpen,
    "gate-scale": weight_faults.GateScale,
    "dead-units": weight_faults.DeadUnits,
    "head-saturated": weight_faults.HeadSaturated,
    "nan-weight": weight_faults.NanWeight,
    "layer-reset": weight_faults.LayerReset,
    "other-checkpoint": weight_faults.OtherCheckpoint,
    "sign-flipped": weight_faults.SignFlipped,
    "units-copied": weight_faults.UnitsCopied,
    "target-network": weight_faults.TargetNetwork,
    "half-once": weight_faults.HalfOnce,
    "half-always": weight_faults.HalfAlways,
    "exploding-gradient": optimizer_faults.ExplodingGradient,
    "vanishing-gradient": optimizer_faults.VanishingGradient,
    "rate-x100": optimizer_faults.RateHundredfold,
    "rate-zero": optimizer_faults.RateZero,
    "frozen-layer": optimizer_faults.FrozenLayer,
    "optimizer-reset": optimizer_faults.OptimizerReset,
    "moments-dropped": optimizer_faults.MomentsDropped,
    "stuck-feed": feed_faults.StuckFeed,
    "raw-feed": feed_faults.RawFeed,
    "raw-live": feed_faults.RawLive,
    "features-permuted": feed_faults.FeaturesPermuted,
    "permuted-live": feed_faults.PermutedLive,
    "feature-nan": feed_faults.FeatureNan,
    "feature-constant": feed_faults.FeatureConstant,
    "shuffled-time": feed_faults.ShuffledTime,
    "label-leak": feed_faults.LabelLeak,
    "labels-late": feed_faults.LabelsLate,
    "labels-early": feed_faults.LabelsEarly,
    "overfit": feed_faults.Overfit,
    "batch-repeated": feed_faults.BatchRepeated,
    "state-kept": state_faults.StateKept,
    "mask-shifted": state_faults.MaskShifted,
    "dropout-on": state_faults.DropoutOn,
}
"""By the name that the table gives it."""
