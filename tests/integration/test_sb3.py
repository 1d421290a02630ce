"""`GateMonitorCallback` in real trainings of RecurrentPPO on the embedded store."""

# ruff: noqa: E402
from __future__ import annotations

import copy
import gc
import json
import logging
import subprocess
import sys
import traceback
from pathlib import Path
from types import ModuleType

# SB3 imports TensorBoard, which so does without TensorFlow: that would take long, and is of no use here.
sys.modules.setdefault("tensorboard.compat.notf", ModuleType("notf"))

import gymnasium
import numpy as np
import pytest
import torch
from sb3_contrib import RecurrentPPO
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    CheckpointCallback,
    EvalCallback,
    EveryNTimesteps,
)
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, FlattenExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor, VecNormalize
from torch.optim import optimizer as optimizers

from gatewatch import open_store
from gatewatch.collector.cells import LSTM
from gatewatch.collector.errors import ConfigError
from gatewatch.sb3 import GateMonitorCallback
from tests.zoo.torch_modules import MISCHIEF, WholeZoo

ROOT = Path(__file__).parents[2]
ENVS, STEPS, UNITS = 3, 16, 5
ROLLOUT = ENVS * STEPS


@pytest.fixture(autouse=True)
def single_threaded_blas():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Walk(gymnasium.Env):
    """Prices at random; a reward of one a step."""

    def __init__(self, length=7, kind="box", continuous=False):
        box = gymnasium.spaces.Box(-10, 10, (3,), np.float32)
        size = gymnasium.spaces.Discrete(4)
        self.kind, self.length = kind, length
        self.observation_space = {
            "box": box,
            "discrete": size,
            "dict": gymnasium.spaces.Dict({"prices": box, "position": size}),
        }[kind]
        self.action_space = gymnasium.spaces.Box(-1, 1, (2,)) if continuous else gymnasium.spaces.Discrete(2)

    def seen(self):
        prices, position = self.np_random.normal(size=3).astype("float32"), int(self.np_random.integers(4))
        return {"box": prices, "discrete": position, "dict": {"prices": prices, "position": position}}[self.kind]

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.left = self.length
        return self.seen(), {}

    def step(self, action):
        self.left -= 1
        return self.seen(), 1.0, self.left == 0, False, {}


def environment(count=ENVS, **options):
    return VecMonitor(DummyVecEnv([lambda: Walk(**options)] * count))


def algorithm(env=None, policy="MlpLstmPolicy", *, policy_kwargs=None, **options):
    return RecurrentPPO(
        policy,
        env or environment(),
        **{"n_steps": STEPS, "batch_size": 24, "n_epochs": 2, "seed": 1, "device": "cpu", **options},
        policy_kwargs={"lstm_hidden_size": UNITS, "net_arch": [], **(policy_kwargs or {})},
    )


def read(measurement, run, **tags):
    return open_store().read(measurement, run=run, tags=tags)


# What is recorded.


NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def own_loop(lstm, x, starts):
    """Gate → layer → (N, T, units), of an explicit loop over `nn.LSTM` whose states are reset where episodes start."""
    lstm.eval()
    steps, envs = starts.shape
    h, c = (torch.zeros(lstm.num_layers, envs, lstm.hidden_size) for _ in "hc")
    found = {gate: [[] for _ in range(lstm.num_layers)] for gate in LSTM.gate_names}
    with torch.no_grad():
        for t in range(steps):
            going = torch.as_tensor(1 - starts[t], dtype=torch.float32)[None, :, None]
            before, (_, (h, c)) = h * going, lstm(torch.as_tensor(x[t])[None], (h * going, c * going))
            below = torch.as_tensor(x[t])
            for k in range(lstm.num_layers):
                w, u, b, d = (getattr(lstm, f"{name}_l{k}") for name in NAMES)
                i, f, g, o = (below @ w.T + before[k] @ u.T + b + d).chunk(4, dim=-1)
                values = (i.sigmoid(), f.sigmoid(), g.tanh(), c[k], o.sigmoid(), h[k])
                for gate, value in zip(LSTM.gate_names, values, strict=True):
                    found[gate][k].append(value)
                below = h[k]
    return {gate: [torch.stack(one, dim=1).numpy() for one in layers] for gate, layers in found.items()}


@pytest.mark.parametrize(
    ("options", "layers"),
    [
        ({}, ["lstm_actor/l0", "lstm_critic/l0"]),
        ({"shared_lstm": True, "enable_critic_lstm": False}, ["lstm_actor/l0"]),
        ({"enable_critic_lstm": False}, ["lstm_actor/l0"]),
        (
            {"n_lstm_layers": 2, "lstm_kwargs": {"dropout": 0.5}},
            ["lstm_actor/l0", "lstm_actor/l1", "lstm_critic/l0", "lstm_critic/l1"],
        ),
    ],
    ids=["actor-and-critic", "shared", "no-critic", "two-layers"],
)
@pytest.mark.parametrize("starts", [(), (4,), (2, 9)], ids=["no-start", "one-start", "two-starts"])
def test_gates_are_those_of_the_policys_own_lstm(options, layers, starts):
    x = np.random.default_rng(0).normal(size=(11, 4, 3)).astype("float32")
    episode_starts = np.zeros((11, 4))
    for number, t in enumerate(starts):
        episode_starts[t, number:] = 1  # not in every environment
    model = algorithm(policy_kwargs=options)
    callback = GateMonitorCallback("logs", probe=(x, episode_starts), every=1)
    model.learn(2 * ROLLOUT, callback)
    with np.load("logs/gate_epoch_1.npz") as file:
        found = {name: file[name] for name in file.files}
    assert {name.rsplit("/", 1)[0] for name in found} == set(layers)
    for layer in layers:
        path, suffix = layer.split("/l")
        expected = own_loop(getattr(model.policy, path), x, episode_starts)
        for gate in LSTM.gate_names:
            np.testing.assert_allclose(found[f"{layer}/{gate}"], expected[gate][int(suffix)], rtol=0, atol=1e-6)
    assert read("collector_health", callback.run)["replay_error"].max() < 1e-6


class Rollouts(BaseCallback):
    """Keeps what the rollout buffer holds at the end of each rollout."""

    def __init__(self):
        super().__init__()
        self.kept = []

    def _on_step(self):
        return True

    def _on_rollout_end(self):
        names = ("hidden_states_pi", "hidden_states_vf", "episode_starts")
        self.kept.append({name: getattr(self.model.rollout_buffer, name).copy() for name in names})


@pytest.mark.parametrize("kind", ["box", "discrete", "dict", "normalised"])
def test_the_probe_is_the_first_rollout_as_it_was(kind):
    env = VecNormalize(environment()) if kind == "normalised" else environment(kind=kind)
    model = algorithm(env, "MultiInputLstmPolicy" if kind == "dict" else "MlpLstmPolicy")
    rollouts, callback = Rollouts(), GateMonitorCallback(every=1)
    model.learn(ROLLOUT, [rollouts, callback])
    kept = rollouts.kept[0]
    assert kept["episode_starts"][1:].any()
    for layer, name in (("lstm_actor/l0", "hidden_states_pi"), ("lstm_critic/l0", "hidden_states_vf")):
        first = read("gate_time", callback.run, layer=layer, gate="hidden").iloc[0]
        means = first[[f"t{t:03d}" for t in range(STEPS - 1)]].to_numpy(float)
        np.testing.assert_allclose(means, kept[name][1:].mean(axis=(1, 2, 3)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["box", "discrete", "dict", "normalised"])
def test_the_feed_of_a_capture_is_the_rollout_that_was_learnt_from(kind):
    class Observations(Rollouts):
        def _on_rollout_end(self):
            self.kept.append(copy.deepcopy(self.model.rollout_buffer.observations))

    env = VecNormalize(environment()) if kind == "normalised" else environment(kind=kind)
    model = algorithm(env, "MultiInputLstmPolicy" if kind == "dict" else "MlpLstmPolicy", n_steps=130, batch_size=390)
    rollouts, callback = Observations(), GateMonitorCallback(every=1, log_dir=None)
    model.learn(2 * 130 * ENVS, [rollouts, callback])
    fed = read("feed_stats", callback.run)
    assert fed["step"].tolist() == [130 * ENVS, 2 * 130 * ENVS]
    assert fed[["sequences", "positions"]].to_numpy().tolist() == [[2 * ENVS, 64]] * 2  # the last 128 of 130 steps
    if kind == "discrete":  # ids, of which there is no mean
        assert set(fed["features"]) == {0}
        assert fed["distinct_share"].tolist() == [1, 1]
        return
    means = read("feed_features", callback.run, statistic="mean")[["f000", "f001", "f002"]].to_numpy()
    prices = [kept["prices"] if kind == "dict" else kept for kept in rollouts.kept]
    np.testing.assert_allclose(means, [kept[2:].mean(axis=(0, 1)) for kept in prices], rtol=1e-5, atol=1e-6)


def test_later_runs_of_a_trained_policy_begin_with_its_states():
    model = algorithm(environment(length=1000))
    model.learn(ROLLOUT)
    rollouts, callback = Rollouts(), GateMonitorCallback()
    model.learn(ROLLOUT, [rollouts, callback], reset_num_timesteps=False)
    kept = rollouts.kept[0]["hidden_states_pi"]
    assert np.abs(kept[0]).min() > 0
    first = read("gate_time", callback.run, layer="lstm_actor/l0", gate="hidden").iloc[0]
    assert first["step"] == ROLLOUT
    assert first["t000"] == pytest.approx(kept[1].mean(), abs=1e-6)


def test_a_long_rollout_of_many_environments_is_looked_at_in_part():
    model = algorithm(environment(40, length=200), n_steps=300, n_epochs=1, batch_size=12_000)
    model.learn(12_000, GateMonitorCallback("logs", every=1))
    with np.load("logs/gate_epoch_0.npz") as file:
        assert file["lstm_actor/l0/forget"].shape == (8, 256, UNITS)


class Remembers(BaseFeaturesExtractor):
    """A GRU over the three prices of an observation."""

    def __init__(self, space):
        super().__init__(space, 4)
        self.memory = torch.nn.GRU(1, 4, batch_first=True)

    def forward(self, observations):
        return self.memory(observations[..., None])[0][:, -1]


@pytest.mark.parametrize("share", [True, False])
def test_a_recurrent_features_extractor_is_recorded_too(share):
    options = {"features_extractor_class": Remembers, "share_features_extractor": share}
    callback = GateMonitorCallback("logs", every=1)
    algorithm(policy_kwargs=options).learn(ROLLOUT, callback)
    extractors = {"features_extractor.memory/l0"} | (set() if share else {"vf_features_extractor.memory/l0"})
    assert set(read("gate_stats", callback.run)["layer"]) == {"lstm_actor/l0", "lstm_critic/l0"} | extractors
    with np.load("logs/gate_epoch_0.npz") as file:
        assert file["features_extractor.memory/l0/reset"].shape == (ENVS * STEPS, 3, 4)


def test_of_a_policy_that_is_recurrent_in_its_features_only(capsys):
    options = {"features_extractor_class": Remembers, "net_arch": []}
    callback = GateMonitorCallback(every=1, verbose=1)
    model = PPO("MlpPolicy", environment(), n_steps=STEPS, batch_size=24, device="cpu", policy_kwargs=options)
    model.learn(2 * ROLLOUT, callback)
    assert set(read("gate_stats", callback.run)["layer"]) == {"features_extractor.memory/l0"}
    assert read("runs", callback.run)["model"].iloc[0] == "PPO MlpPolicy"
    assert capsys.readouterr().out == f"gatewatch: run {callback.run} goes to sqlite:///gatewatch.db\n"


# What a training writes.


def test_one_argument_of_learn_writes_every_measurement():
    callback = GateMonitorCallback(every=2 * ROLLOUT, tags={"symbol": "GOOGL"}, reference="goog-1")
    algorithm().learn(5 * ROLLOUT, callback)
    stats = read("gate_stats", callback.run, gate="forget", layer="lstm_critic/l0")
    assert stats["step"].tolist() == [0, 2 * ROLLOUT, 4 * ROLLOUT]
    assert stats["epoch"].tolist() == [0, 1, 3]
    assert set(stats["symbol"]) == {"GOOGL"}
    assert sorted(path.name for path in Path("gate_logs").iterdir()) == ["gate_epoch_1.npz", "gate_epoch_3.npz"]

    updates = read("layer_updates", callback.run)
    assert set(updates["step"]) == {2 * ROLLOUT, 4 * ROLLOUT}
    assert {"lstm_actor/l0", "lstm_critic/l0", "action_net", "value_net"} == set(updates["layer"])
    assert set(updates["travel_steps"].dropna()) == {8}  # two rollouts, each learnt from twice, in two batches
    assert updates["travel"].notna().tolist() == (updates["step"] == 4 * ROLLOUT).tolist()

    fed = read("feed_stats", callback.run)
    assert fed["step"].tolist() == [2 * ROLLOUT, 4 * ROLLOUT]
    assert fed[["features", "sequences", "positions"]].to_numpy().tolist() == [[3, ENVS, STEPS]] * 2

    metrics = read("train_metrics", callback.run)
    assert metrics["step"].tolist() == [ROLLOUT * n for n in range(1, 6)]
    assert metrics["epoch"].tolist() == list(range(5))
    assert metrics[["train/loss", "train/value_loss", "rollout/ep_rew_mean"]].notna().all(axis=None)
    assert metrics["train/n_updates"].tolist() == [2, 4, 6, 8, 10]

    events = read("runs", callback.run)
    assert events["event"].tolist() == ["started", "completed"]
    assert events[["framework", "model"]].iloc[0].tolist() == ["sb3", "RecurrentPPO MlpLstmPolicy"]
    told = json.loads(events["config"].iloc[0])
    assert (told["n_steps"], told["n_envs"], told["lstm_hidden_size"]) == (STEPS, ENVS, UNITS)
    assert (told["max_grad_norm"], told["learning_rate"]) == (0.5, 3e-4)
    assert told["layers"]["lstm_actor/l0"]["hidden_size"] == UNITS
    assert told["reference"] == "goog-1"
    health = read("collector_health", callback.run).iloc[-1]
    assert health[["captured", "failures", "rejected", "dropped", "unreplayed_layers"]].tolist() == [3, 0, 0, 0, 0]


def test_auto_looks_before_the_first_training_and_after_it():
    callback = GateMonitorCallback(overhead=1.0)  # on a busy machine 0.01 of a short training may not pay for a file
    algorithm().learn(3 * ROLLOUT, callback)
    assert read("gate_stats", callback.run)["step"].unique().tolist()[:2] == [0, ROLLOUT]
    assert Path("gate_logs/gate_epoch_0.npz").exists()


@pytest.mark.parametrize("max_grad_norm", [1e-3, 1e9], ids=["clipped", "whole"])
def test_gradients_and_updates_are_those_of_the_first_step(max_grad_norm, monkeypatch):
    model = algorithm(max_grad_norm=max_grad_norm)
    steps, clip = [], torch.nn.utils.clip_grad_norm_

    def clip_and_keep(parameters, *options):
        steps.append({"whole": {name: p.grad.clone() for name, p in model.policy.named_parameters()}})
        return clip(parameters, *options)

    def before(*_):
        steps[-1]["clipped"] = {name: p.grad.clone() for name, p in model.policy.named_parameters()}
        steps[-1]["before"] = {name: p.detach().clone() for name, p in model.policy.named_parameters()}

    def after(*_):
        steps[-1]["after"] = {name: p.detach().clone() for name, p in model.policy.named_parameters()}

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", clip_and_keep)
    model.policy.optimizer.register_step_pre_hook(before)
    model.policy.optimizer.register_step_post_hook(after)
    callback = GateMonitorCallback(every=ROLLOUT)
    model.learn(2 * ROLLOUT, callback)
    updates = read("layer_updates", callback.run, param="recurrent", layer="lstm_critic/l0")
    assert updates["step"].tolist() == [ROLLOUT, 2 * ROLLOUT]
    firsts = steps[0], steps[len(steps) // 2]
    for first, (_, found) in zip(firsts, updates.iterrows(), strict=True):
        old, new, whole, clipped = (
            first[when]["lstm_critic.weight_hh_l0"].double() for when in ("before", "after", "whole", "clipped")
        )
        assert found["gradient_norm"] == pytest.approx(float(whole.norm()), rel=1e-5)
        assert found["gradient_norm_clipped"] == pytest.approx(float(clipped.norm()), rel=1e-5)
        assert found["update_norm"] == pytest.approx(float((new - old).norm()), rel=1e-3)
        assert found["update_ratio"] == pytest.approx(float((new - old).norm() / old.norm()), rel=1e-3)
        assert (found["gradient_norm"] > 2 * found["gradient_norm_clipped"]) == (max_grad_norm < 1)


def test_rewards_are_of_the_episodes_that_ended_in_the_iteration():
    callback = GateMonitorCallback(every=10**9)
    algorithm(environment(length=40)).learn(4 * ROLLOUT, callback)
    metrics = read("train_metrics", callback.run)
    assert metrics["step"].tolist() == [ROLLOUT * n for n in range(1, 5)]
    ended = metrics.dropna(subset="reward")
    assert ended["step"].tolist() == [3 * ROLLOUT]  # steps 33 to 48 of each environment
    assert ended[["reward", "episode_length", "episodes"]].iloc[0].tolist() == [40, 40, ENVS]
    assert metrics[["nan_count", "inf_count"]].to_numpy().sum() == 0


def test_the_learning_rate_is_that_of_the_training_before_a_capture():
    callback = GateMonitorCallback(every=2 * ROLLOUT)
    algorithm(learning_rate=lambda left: 1e-3 * left).learn(4 * ROLLOUT, callback)
    metrics = read("train_metrics", callback.run).set_index("step")
    told = metrics["learning_rate"].dropna()
    assert told.to_dict() == pytest.approx({2 * ROLLOUT: 0.5e-3, 4 * ROLLOUT: 0.0})
    assert told.to_dict() == pytest.approx(metrics["train/learning_rate"][told.index].to_dict())


def test_what_another_callback_logs_and_dumps_is_kept():
    class Evaluates(BaseCallback):
        def _on_step(self):
            if self.n_calls % STEPS == 3:
                self.logger.record("eval/mean_reward", float(self.n_calls))
                self.logger.dump(self.num_timesteps)
            return True

    model, callback = algorithm(), GateMonitorCallback(every=1)
    model.learn(2 * ROLLOUT, [Evaluates(), callback])
    assert read("train_metrics", callback.run)["eval/mean_reward"].tolist() == [3.0, 3.0 + STEPS]
    assert not any(type(one).__module__.startswith("gatewatch") for one in model.logger.output_formats)


def test_another_learn_goes_on_with_the_run():
    model, callback = algorithm(), GateMonitorCallback(every=1, run="twice")
    model.learn(2 * ROLLOUT, callback)
    assert model.num_timesteps == 2 * ROLLOUT
    model.learn(ROLLOUT, callback)
    assert model.num_timesteps == ROLLOUT
    model.learn(ROLLOUT, callback, reset_num_timesteps=False)
    stats = read("gate_stats", "twice", gate="forget", layer="lstm_actor/l0")
    assert [step // ROLLOUT for step in stats["step"]] == [0, 1, 2, 2, 3, 3, 4]
    assert [step // ROLLOUT for step in read("train_metrics", "twice")["step"]] == [1, 2, 3, 4]
    assert read("runs", "twice")["event"].tolist() == ["started", "completed"] * 3
    assert read("layer_updates", "twice")["step"].nunique() == 4
    repeated = stats[stats["step"] == 2 * ROLLOUT]
    assert repeated["mean"].nunique() == 1  # of the same policy, with the same probe


# What it leaves alone.


def state_of(model):
    torch_state, (_, numpy_state, position, *_) = torch.get_rng_state().numpy(), np.random.get_state()
    weights = [value.numpy() for value in model.policy.state_dict().values()]
    adam = [part for one in model.policy.optimizer.state_dict()["state"].values() for part in one.values()]
    return [*weights, *map(np.asarray, adam), torch_state, numpy_state, position, model._last_obs]


class Zoo(BaseFeaturesExtractor):
    """Does every mischief with the observations."""

    def __init__(self, observation_space):
        super().__init__(observation_space, 2)
        self.zoo = WholeZoo(set(MISCHIEF) - {"Inputs"})  # which the layers before it need for their gradients

    def forward(self, observations):
        return self.zoo(observations.unsqueeze(1))


@pytest.mark.parametrize(
    ("env", "options"),
    [
        ({}, {"policy_kwargs": {"features_extractor_class": Zoo}}),
        ({}, {}),
        ({}, {"policy_kwargs": {"n_lstm_layers": 2, "lstm_kwargs": {"dropout": 0.5}}}),
        ({"continuous": True}, {"use_sde": True, "sde_sample_freq": 4}),
    ],
    ids=["zoo", "plain", "dropout", "gSDE"],
)
def test_a_training_is_the_same_bit_for_bit(env, options):
    def trained(callback):
        gc.collect()  # or what earlier models of the zoo do when they are deleted falls into this training
        model = algorithm(environment(**env), **options)
        model.learn(4 * ROLLOUT, callback)
        return state_of(model)

    bare, watched = trained(None), trained(GateMonitorCallback(every=1))
    assert len(bare) == len(watched)
    for one, other in zip(bare, watched, strict=True):
        np.testing.assert_array_equal(one, other)


def hooks():
    return len(optimizers._global_optimizer_pre_hooks), len(optimizers._global_optimizer_post_hooks)


class BreakOff(BaseCallback):
    def __init__(self, at):
        super().__init__()
        self.at = at

    def _on_step(self):
        return self.n_calls < self.at


@pytest.mark.parametrize(("at", "steps"), [(10**9, 3), (STEPS + 3, 1), (3, 0)])
def test_no_hook_is_left_wherever_the_training_is_broken_off(at, steps):
    before, model = hooks(), algorithm()
    callback = GateMonitorCallback(every=1)
    model.learn(3 * ROLLOUT, [callback, BreakOff(at)])
    assert hooks() == before
    assert not any(parameter._post_accumulate_grad_hooks for parameter in model.policy.parameters())
    assert read("runs", callback.run)["event"].tolist() == ["started", "completed"]
    assert len(read("train_metrics", callback.run)) == steps


def test_a_model_is_saved_while_it_is_watched(place):
    model = algorithm()
    model.learn(2 * ROLLOUT, [GateMonitorCallback(every=1), CheckpointCallback(STEPS, "models")])
    model.save("models/last")
    for path in ("models/rl_model_48_steps.zip", "models/last.zip"):
        loaded = RecurrentPPO.load(path, environment(), device="cpu")
        loaded.learn(ROLLOUT, GateMonitorCallback())


class Refuses(FlattenExtractor):
    """Takes no more than one observation of each environment outside training."""

    def forward(self, observations):
        if not self.training and len(observations) > ENVS:
            raise RuntimeError("too many")
        return super().forward(observations)


def test_a_look_that_fails_is_said_once_and_stops_nobody(caplog):
    options = {"features_extractor_class": Refuses}
    with caplog.at_level(logging.WARNING, "gatewatch"):
        callback = GateMonitorCallback(every=1)
        algorithm(policy_kwargs=options).learn(3 * ROLLOUT, callback)
    said = [record.message for record in caplog.records]
    assert sum("a capture failed, training goes on: RuntimeError: too many" in one for one in said) == 1
    assert read("collector_health", callback.run)["failures"].max() == 4
    assert len(read("train_metrics", callback.run)) == 3
    assert read("runs", callback.run)["event"].tolist() == ["started", "completed"]


def test_a_learn_that_failed_and_is_tried_again():
    class Fails(BaseCallback):
        def _on_step(self):
            raise ZeroDivisionError

    model, callback = algorithm(), GateMonitorCallback(every=1)
    with pytest.raises(ZeroDivisionError):
        model.learn(ROLLOUT, [callback, Fails()])
    model.learn(ROLLOUT, callback)
    assert read("runs", callback.run)["event"].tolist() == ["started", "interrupted", "started", "completed"]
    assert set(read("gate_stats", callback.run)["step"]) == {0, ROLLOUT}


# What is refused before training.


def raises_before_the_first_step(match, model=None, **options):
    model = model or algorithm()
    with pytest.raises(ConfigError, match=match) as caught:
        model.learn(ROLLOUT, GateMonitorCallback(**options))
    assert "\n" not in str(caught.value)
    assert model.num_timesteps == 0


def test_what_is_wrong_is_said_before_training(place):
    plain = PPO("MlpPolicy", environment(), n_steps=STEPS, batch_size=24, device="cpu")
    raises_before_the_first_step("PPO MlpPolicy has no recurrent layer.*RecurrentPPO", plain)
    raises_before_the_first_step("on-policy.*not DQN", DQN("MlpPolicy", environment(), buffer_size=10, device="cpu"))
    raises_before_the_first_step("'other' is no recurrent layer.*lstm_actor/l0", layers=["other"])
    raises_before_the_first_step("ftp://host", store="ftp://host")
    raises_before_the_first_step(r"probe of shape \(5, 2, 4\).*\(time, environments, 3\)", probe=np.zeros((5, 2, 4)))
    raises_before_the_first_step("probe.*prices", probe={"prices": np.zeros((5, 2, 3))})
    (place / "file").write_text("not a folder")
    raises_before_the_first_step("log_dir=.*cannot be written", log_dir="file/logs")
    algorithm().learn(ROLLOUT, GateMonitorCallback(run="mine"))
    raises_before_the_first_step("run='mine'.*already holds", run="mine")


@pytest.mark.parametrize(
    ("name", "inside"),
    [
        ("EveryNTimesteps", lambda callback: EveryNTimesteps(10, callback)),
        ("EveryNTimesteps", lambda callback: EveryNTimesteps(10, CallbackList([callback]))),
        (
            "EveryNTimesteps",
            lambda callback: EveryNTimesteps(10, CallbackList([BreakOff(9), CallbackList([callback])])),
        ),
        ("EveryNTimesteps", lambda callback: [CallbackList([EveryNTimesteps(10, CallbackList([callback]))])]),
        ("EvalCallback", lambda callback: EvalCallback(environment(1), callback_after_eval=callback)),
        ("EvalCallback", lambda callback: EvalCallback(environment(1), callback_on_new_best=callback)),
        ("EvalCallback", lambda callback: EvalCallback(environment(1), callback_on_new_best=CallbackList([callback]))),
        (
            "EvalCallback",
            lambda callback: EvalCallback(
                environment(1), callback_on_new_best=CallbackList([CallbackList([CallbackList([callback])])])
            ),
        ),
    ],
)
def test_a_callback_that_passes_on_few_events_is_no_place_for_it(name, inside):
    model = algorithm()
    with pytest.raises(ConfigError, match=rf"inside {name}, .*give it to learn\(\) itself") as caught:
        model.learn(ROLLOUT, inside(GateMonitorCallback()))
    assert "\n" not in str(caught.value)
    assert model.num_timesteps == 0


def test_lists_in_lists_pass_on_every_event():
    callback = GateMonitorCallback(every=1)
    algorithm().learn(ROLLOUT, CallbackList([CallbackList([callback]), EveryNTimesteps(10, BreakOff(10**9))]))
    assert set(read("gate_stats", callback.run)["step"]) == {0, ROLLOUT}


class PassesOn(BaseCallback):
    """Calls another callback in place of SB3's own way."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def _init_callback(self):
        self.inner.init_callback(self.model)

    def on_training_start(self, locals_, globals_):
        self.inner.on_training_start(locals_, globals_)

    def on_rollout_start(self):
        self.inner.on_rollout_start()

    def on_rollout_end(self):
        self.inner.on_rollout_end()

    def on_training_end(self):
        self.inner.on_training_end()

    def _on_step(self):
        return self.inner.on_step()


def test_a_callback_of_ones_own_that_passes_on_every_event_is_a_place_for_it():
    callback = GateMonitorCallback(every=1)
    algorithm().learn(ROLLOUT, PassesOn(callback))
    assert set(read("gate_stats", callback.run)["step"]) == {0, ROLLOUT}


def test_a_training_broken_off_in_its_first_rollout_says_that_nothing_was_captured(caplog):
    callback = GateMonitorCallback()
    with caplog.at_level(logging.WARNING, "gatewatch"):
        algorithm().learn(ROLLOUT, [callback, BreakOff(3)])
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        f"gatewatch: run '{callback.run}' ends without a capture: the training ended before its first step, or nothing "
        "called step()"
    ]


@pytest.mark.parametrize(
    "probe",
    [
        "prices",
        np.zeros(3),
        np.zeros((0, 2, 3)),
        np.full((5, 2), "a"),
        {},
        {"a": np.zeros((5, 2)), "b": np.zeros((4, 2))},
        (np.zeros((5, 2, 3)), np.zeros((5, 3))),
        [[1, 2], [3]],
    ],
)
def test_a_probe_that_is_none(probe):
    with pytest.raises(ConfigError, match=r"^probe: .*; give observations") as caught:
        GateMonitorCallback(probe=probe)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["box", "discrete", "dict"])
def test_a_probe_of_ones_own_is_looked_at_from_the_beginning(kind):
    prices = np.random.default_rng(0).normal(size=(6, 2, 3)).astype("float32")
    position = np.arange(12).reshape(6, 2) % 4
    probe = {"box": prices, "discrete": position, "dict": {"prices": prices, "position": position}}[kind]
    callback = GateMonitorCallback(probe=probe, every=1, layers=["lstm_actor"])
    model = algorithm(environment(kind=kind), "MultiInputLstmPolicy" if kind == "dict" else "MlpLstmPolicy")
    model.learn(ROLLOUT, callback)
    stats = read("gate_stats", callback.run)
    assert set(stats["step"]) == {0, ROLLOUT}
    assert set(stats["layer"]) == {"lstm_actor/l0"}
    assert [c for c in read("gate_time", callback.run) if c.startswith("t0")] == [f"t{t:03d}" for t in range(6)]
    assert json.loads(read("runs", callback.run)["config"].iloc[0])["probe_fingerprint"]


def test_the_example_runs(place):
    script = ROOT / "examples/sb3_recurrent_ppo.py"
    options = ["--timesteps", "256", "--n-steps", "32", "--units", "8", "--store", "sqlite:///a b.db", "--run", "it's"]
    done = subprocess.run(
        [sys.executable, str(script), *options], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "gatewatch report 'it'\"'\"'s' --store 'sqlite:///a b.db'" in done.stdout
    store = open_store("sqlite:///a b.db")
    assert store.runs()["state"].tolist() == ["completed"]
    assert set(store.read("gate_stats", run="it's")["step"]) == {0, 128, 256}
    assert json.loads(store.read("runs", run="it's")["config"].iloc[0])["env"] == "stocks-v0"


class OddPolicy(RecurrentActorCriticPolicy):
    """Cannot be shown, nor will it tell its parameters to Gatewatch."""

    def __repr__(self):
        raise ValueError("unseen")

    def parameters(self, recurse=True):
        if sys._getframe(1).f_globals["__name__"].startswith("gatewatch."):
            raise RuntimeError("sealed")
        return super().parameters(recurse)


def test_a_policy_that_raises_when_it_is_asked_trains_as_without_a_monitor(caplog):
    def weights(*callbacks):
        model = algorithm(policy=OddPolicy)
        model.learn(2 * ROLLOUT, callback=list(callbacks))
        return [value.clone() for value in model.policy.state_dict().values()]

    wanted = weights()
    with caplog.at_level(logging.WARNING, "gatewatch"):
        found = weights(GateMonitorCallback(None, run="odd", every=ROLLOUT))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, wanted, strict=True))
    said = "is left out of what is recorded of the run: it raised"
    assert [record.message for record in caplog.records] == [
        f"gatewatch: OddPolicy.parameters() {said} RuntimeError: sealed",
        f"gatewatch: OddPolicy.__repr__() {said} ValueError: unseen",
    ]
    assert read("runs", "odd")["event"].tolist() == ["started", "completed"]
    assert set(read("gate_stats", "odd")["step"]) == {0, ROLLOUT, 2 * ROLLOUT}
    config = json.loads(read("runs", "odd")["config"].iloc[0])
    assert (config["parameters"], config["summary"], config["gamma"]) == (None, None, 0.99)


class OddRate:
    """A learning rate's schedule that raises when Gatewatch asks for it."""

    def __call__(self, progress):
        if any("collector" in frame.filename for frame in traceback.extract_stack()):
            raise RuntimeError("not now")
        return 1e-3


def test_a_schedule_that_raises_when_it_is_asked_costs_a_line(caplog):
    with caplog.at_level(logging.WARNING, "gatewatch"):
        algorithm(learning_rate=OddRate()).learn(ROLLOUT, callback=GateMonitorCallback(None, run="odd"))
    assert [record.message.partition(" is left")[0] for record in caplog.records] == [
        "gatewatch: RecurrentPPO.lr_schedule()"
    ]
    assert read("runs", "odd")["event"].tolist() == ["started", "completed"]
