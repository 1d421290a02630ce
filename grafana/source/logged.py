"""What frameworks and users call the numbers that they log in `train_metrics`, as conditions on the field."""

from __future__ import annotations

from typing import Final

_BEGIN: Final = r"(^|[\/_ .])"
_RATES: Final = rf"/{_BEGIN}(learning_rate|lr)$/"
_REWARDS: Final = rf"/(?i){_BEGIN}(reward|rew|return|equity|profit|pnl|sharpe)s?([\/_ .]|$)/"
_COUNTERS: Final = (
    r"/(?i)^(step|epoch|episodes?|actions|nan_count|inf_count|global_step)$|^time[\/]|"
    rf"{_BEGIN}(iterations?|n_updates|total_timesteps|fps|time_elapsed|ep_len_mean|episode_length)$/"
)
_LOSS: Final = r"/^(train[\/_ ])?loss(_step|_epoch)?$/"
_VALIDATION: Final = r"/^(val|valid|validation|eval|test)[\/_ ]loss$/"
_POLICY: Final = r"/(?i)^(.*[\/.])?(entropy(_loss)?|explained_variance|action_share|position_share)$|^(train[\/])?std$/"
_POLICY_STEPS: Final = r"/(?i)^(.*[\/.])?(approx_kl|clip_?frac(tion)?)$/"

LOSS: Final = f"r._field =~ {_LOSS}"
"""The loss that the training lowers."""
VALIDATION_LOSS: Final = f"r._field =~ {_VALIDATION}"
LOSSES: Final = f"({LOSS} or {VALIDATION_LOSS})"
REWARD: Final = f"r._field =~ {_REWARDS}"
"""What a policy earns, whatever it is called."""
RATE: Final = f"r._field =~ {_RATES}"
POLICY: Final = f"r._field =~ {_POLICY}"
"""How sure a policy is, how far its critic explains what it earns, and whether it varies what it does."""
POLICY_STEPS: Final = f"r._field =~ {_POLICY_STEPS}"
"""How far a training moves a policy."""
_ELSEWHERE: Final = (_LOSS, _VALIDATION, _RATES, _REWARDS, _COUNTERS, _POLICY, _POLICY_STEPS)
OTHER: Final = " and ".join(f"r._field !~ {pattern}" for pattern in _ELSEWHERE)
"""Everything else but counters and times, which say nothing of how well a network learns."""
