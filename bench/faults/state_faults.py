"""Faults of the state that an episode begins with, and of the rollouts that a policy is trained on."""

from __future__ import annotations

from bench.faults.fault import Fault, Rollout


class StateKept(Fault):
    """The state is no longer reset where an episode starts: what was remembered of the last one leaks into it."""

    shows = "state"
    exact = True
    strikes = ("backtest",)
    resets = "never"

    def strike_rollout(self, rollout: Rollout, since: int) -> None:
        """Once."""
        if since == 0:
            rollout.keep_state()


class MaskShifted(Fault):
    """The mask of episodes' starts is off by one: the state is reset one call late."""

    shows = "state"
    exact = True
    strikes = ("backtest",)
    resets = "a call late"

    def strike_rollout(self, rollout: Rollout, since: int) -> None:
        """Each time: what is trained on is new."""
        rollout.shift_starts()


class DropoutOn(Fault):
    """Dropout stays on where the policy acts: what it did is not what it would do by its own probabilities."""

    shows = "state"
    exact = True
    frameworks = ()

    def strike_rollout(self, rollout: Rollout, since: int) -> None:
        """Once."""
        if since == 0:
            rollout.leave_dropout_on()
