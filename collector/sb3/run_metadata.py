"""The metadata of an algorithm: its name and its hyperparameters."""

from __future__ import annotations

from typing import Any, Final

from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from gatewatch.collector.runtime.error_guard import safe_attributes, safe_get

_OF_THE_ALGORITHM: Final = (
    *("n_steps", "batch_size", "n_epochs", "gamma", "gae_lambda", "ent_coef", "vf_coef", "max_grad_norm"),
    *("normalize_advantage", "target_kl", "use_sde", "seed", "n_envs"),
)


def model_name(model: OnPolicyAlgorithm) -> str:
    """Return the names of algorithm and policy, the latter by its alias where it has one."""
    kind = type(model.policy)
    aliases = safe_get(
        model, "policy_aliases", lambda: [name for name, one in model.policy_aliases.items() if one is kind]
    )
    return f"{type(model).__name__} {next(iter(aliases or ()), kind.__name__)}"


def model_config(model: OnPolicyAlgorithm) -> dict[str, Any]:
    """Return the hyperparameters that matter, and the environment's id; what an algorithm lacks is left out."""
    policy = model.policy
    lstm = safe_get(policy, "lstm_actor")
    sizes = (
        {}
        if lstm is None
        else {"lstm_hidden_size": safe_get(lstm, "hidden_size"), "n_lstm_layers": safe_get(lstm, "num_layers")}
    )
    return {
        "env": _environment_id(model),
        "learning_rate": safe_get(model, "lr_schedule()", lambda: model.lr_schedule(model._current_progress_remaining)),
        **safe_attributes(model, _OF_THE_ALGORITHM),
        **safe_attributes(policy, ("shared_lstm", "enable_critic_lstm")),
        **sizes,
    }


def _environment_id(model: OnPolicyAlgorithm) -> str | None:
    """Return the id of an environment in this process; one elsewhere is not asked: its spec may not be sendable."""
    try:
        environments: Any = getattr(model.get_env(), "unwrapped", None)
        return str(environments.envs[0].unwrapped.spec.id)
    except Exception:  # of whatever kind the environments are
        return None
