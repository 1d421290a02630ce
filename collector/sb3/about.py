"""What is told of an algorithm with its run."""

from __future__ import annotations

from typing import Any, Final

from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

_OF_THE_ALGORITHM: Final = (
    *("n_steps", "batch_size", "n_epochs", "gamma", "gae_lambda", "ent_coef", "vf_coef", "max_grad_norm"),
    *("normalize_advantage", "target_kl", "use_sde", "seed", "n_envs"),
)
_OF_THE_POLICY: Final = ("shared_lstm", "enable_critic_lstm")


def model_name(model: OnPolicyAlgorithm) -> str:
    """Algorithm and policy, the latter by the name that it is asked for, where it has one."""
    kind = type(model.policy)
    aliases = (alias for alias, policy in model.policy_aliases.items() if policy is kind)
    return f"{type(model).__name__} {next(aliases, kind.__name__)}"


def model_config(model: OnPolicyAlgorithm) -> dict[str, Any]:
    """The hyperparameters that matter, the environment's id and the policy; what an algorithm lacks is left out."""
    lstm = getattr(model.policy, "lstm_actor", None)
    sizes = {} if lstm is None else {"lstm_hidden_size": lstm.hidden_size, "n_lstm_layers": lstm.num_layers}
    return {
        "env": _environment_id(model),
        "learning_rate": model.lr_schedule(model._current_progress_remaining),
        **{name: getattr(model, name) for name in _OF_THE_ALGORITHM if hasattr(model, name)},
        **{name: getattr(model.policy, name) for name in _OF_THE_POLICY if hasattr(model.policy, name)},
        **sizes,
        "parameters": sum(parameter.numel() for parameter in model.policy.parameters()),
        "summary": str(model.policy),
    }


def _environment_id(model: OnPolicyAlgorithm) -> str | None:
    """Of an environment in this process: one in another is not asked, since its spec may not be sendable."""
    try:
        environments: Any = getattr(model.get_env(), "unwrapped", None)
        return str(environments.envs[0].unwrapped.spec.id)
    except Exception:  # of whatever kind the environments are
        return None
