"""The faults of the benchmark: that each does what it says, to what it says, and to nothing else."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.faults.cases import Case
from bench.faults.fault import Batch
from bench.faults.faults import FAULTS
from bench.faults.program import Program
from bench.faults.setups import Setup
from bench.faults.shapes import SHAPES
from bench.faults.weight_faults import to_bfloat16

SHAPE = "torch-lstm-16-16"


@pytest.fixture(scope="module")
def torch_runs():
    from bench.faults import torch_runs

    return torch_runs


def network(torch_runs, shape=SHAPE):
    import torch

    torch.manual_seed(0)
    policy = torch_runs.Policy(SHAPES[shape], Setup())
    optimizer = torch.optim.Adam(policy.parameters())
    policy(torch.ones(2, 5, 4))[0].sum().backward()
    optimizer.step()
    return policy, optimizer, torch_runs.TorchNetwork(policy, policy.position, optimizer)


def changed(policy, before):
    return {name for name, value in policy.state_dict().items() if not value.equal(before[name])}


WEIGHTS = {
    "forget-shut": {"bias_ih", "bias_hh"},
    "forget-open": {"bias_ih", "bias_hh"},
    "gate-scale": {"weight_hh"},
    "nan-weight": {"weight_hh"},
    "dead-units": {"weight_ih", "weight_hh", "bias_ih", "bias_hh"},
    "layer-reset": {"weight_ih", "weight_hh", "bias_ih", "bias_hh"},
    "sign-flipped": {"weight_hh"},
    "units-copied": {"weight_ih", "weight_hh", "bias_ih", "bias_hh"},
}


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_fault_of_weights_changes_those_of_one_layer(torch_runs, name, seed):
    policy, _, of = network(torch_runs)
    before = copy.deepcopy(policy.state_dict())
    FAULTS[name](seed).strike(of, 0)
    after = changed(policy, before)
    assert {f"memory.{weight}_l{seed}" for weight in WEIGHTS[name]} <= after
    outgoing = {"memory.weight_ih_l1"} if seed == 0 else {"position.weight"}
    assert after <= {f"memory.{weight}_l{seed}" for weight in WEIGHTS[name]} | outgoing


@pytest.mark.parametrize(("name", "low", "high"), [("forget-shut", 0.0, 0.01), ("forget-open", 0.99, 1.0)])
@pytest.mark.parametrize(("shape", "gate"), [("torch-lstm-32", "forget"), ("torch-gru-20", "update")])
def test_the_gate_that_keeps_the_state_is_driven_to_one_side(torch_runs, name, low, high, shape, gate):
    import torch

    from gatewatch.collector.torch import gates

    policy, _, of = network(torch_runs, shape)
    FAULTS[name](0).strike(of, 0)
    found = gates(policy, torch.zeros(2, 5, 4))["memory/l0"][gate]
    assert low <= found.min() <= found.max() <= high


def test_dead_units_stay_at_zero(torch_runs):
    import torch

    from gatewatch.collector.torch import gates

    policy, _, of = network(torch_runs)
    FAULTS["dead-units"](0).strike(of, 7)
    hidden = gates(policy, torch.randn(2, 5, 4))["memory/l0"]["hidden"]
    assert not hidden[..., :8].any()
    assert hidden[..., 8:].all()


def test_a_frozen_layer_is_no_longer_trained(torch_runs):
    policy, _, of = network(torch_runs)
    FAULTS["frozen-layer"](1).strike(of, 0)
    frozen = {name for name, parameter in policy.named_parameters() if not parameter.requires_grad}
    assert frozen == {f"memory.{name}_l1" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}


def test_a_reset_optimizer_keeps_its_step_count_alone(torch_runs):
    _, optimizer, of = network(torch_runs)
    FAULTS["optimizer-reset"](0).strike(of, 0)
    for state in optimizer.state.values():
        assert float(state["step"]) == 1
        assert not state["exp_avg"].any()
        assert not state["exp_avg_sq"].any()


def test_a_new_optimizer_has_no_steps_behind_it(torch_runs):
    _, optimizer, of = network(torch_runs)
    FAULTS["moments-dropped"](0).strike(of, 0)
    for state in optimizer.state.values():
        assert float(state["step"]) == 0
        assert not state["exp_avg_sq"].any()


@pytest.mark.parametrize("shape", [SHAPE, "torch-gru-14-14"])
def test_copied_units_do_the_same(torch_runs, shape):
    import torch

    from gatewatch.collector.torch import gates

    policy, _, of = network(torch_runs, shape)
    FAULTS["units-copied"](0).strike(of, 0)
    half = SHAPES[shape].units[0] // 2
    for name, values in gates(policy, torch.randn(2, 5, 4))["memory/l0"].items():
        np.testing.assert_allclose(values[..., :half], values[..., half:], atol=1e-6, err_msg=name)


def test_a_target_network_is_what_the_weights_were_some_hundred_steps_ago(torch_runs):
    import torch

    policy, _, of = network(torch_runs)
    fault = FAULTS["target-network"](0)
    for step in range(1_000):
        policy.position.bias.data.fill_(step / 100)
        fault.watch(of)
    kernel = policy.memory.weight_hh_l0.detach().clone()
    fault.strike(of, 0)
    assert 8.8 < policy.position.bias.item() < 9.2
    assert torch.allclose(policy.memory.weight_hh_l0, kernel)


def test_another_run_gives_the_weights_of_the_same_network_trained_from_another_seed(torch_runs):
    program = Program(Case("develop", SHAPE, "GOOG", 3, "training", "other-checkpoint", None, 0.05))
    assert program.another_run.strikes_at == program.strikes_at == 19
    policy = torch_runs.Policy(SHAPES[SHAPE], Setup())
    before = copy.deepcopy(policy.state_dict())
    of = torch_runs.TorchNetwork(policy, policy.position, None, lambda: torch_runs._trained(program))
    FAULTS["other-checkpoint"](3).strike(of, 0)
    assert changed(policy, before) == set(before)


def test_half_precision_rounds_every_weight(torch_runs):
    policy, _, of = network(torch_runs)
    before = copy.deepcopy(policy.state_dict())
    FAULTS["half-once"](0).strike(of, 0)
    for name, value in policy.state_dict().items():
        assert value.equal(before[name].half().float())
    FAULTS["half-always"](0).strike(of, 5)
    for value in policy.state_dict().values():
        assert value.equal(value.bfloat16().float())


@given(st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False))
def test_rounding_to_bfloat16_is_that_of_torch(value):
    import torch

    rounded = to_bfloat16(np.array([value], "float32"))
    assert float(rounded[0]) == float(torch.tensor(value, dtype=torch.float32).bfloat16())


def test_a_saturated_head_changes_the_output_alone(torch_runs):
    import torch

    policy, _, of = network(torch_runs)
    x, before = torch.randn(64, 5, 4), copy.deepcopy(policy.state_dict())
    unscaled = policy(x)[0].abs()
    FAULTS["head-saturated"](0).strike(of, 0)
    assert changed(policy, before) == {"position.weight"}
    assert unscaled.max() < 0.5
    assert (policy(x)[0].abs() > 0.9).float().mean() > 0.3


@pytest.mark.parametrize(
    "name",
    [
        *("gate-scale", "head-saturated", "nan-weight", "optimizer-reset", "moments-dropped", "frozen-layer"),
        *("layer-reset", "other-checkpoint", "sign-flipped", "units-copied", "target-network", "half-once"),
    ],
)
def test_what_happens_once_does_not_happen_again(torch_runs, name):
    policy, _, of = network(torch_runs)
    before = copy.deepcopy(policy.state_dict())
    FAULTS[name](0).strike(of, 1)
    assert not changed(policy, before)
    assert all(parameter.requires_grad for parameter in policy.parameters())


def test_faults_of_the_learning_rate():
    assert FAULTS["rate-x100"](0).rate(0.002) == pytest.approx(0.2)
    assert FAULTS["rate-zero"](0).rate(0.002) == 0
    program = Program(Case("develop", SHAPE, "GOOG", 3, "training", "rate-zero", None, 0.6))
    assert program.rate(program.strikes_at - 1) > 0 == program.rate(program.strikes_at)


def test_faults_of_the_batch():
    random = np.random.default_rng(0)
    x, raw = random.normal(size=(2, 8, 6, 4)).astype("float32")
    batch = Batch(x, raw, random.normal(size=(8, 1)).astype("float32"), np.ones(8, "float32"))
    struck = {name: fault(0).batch(batch) for name, fault in FAULTS.items()}
    assert (struck["exploding-gradient"].weight == 1e3).all()
    assert struck["vanishing-gradient"].weight == pytest.approx(1e-6)
    assert (struck["stuck-feed"].x == x[0, 0]).all()
    assert not struck["stuck-feed"].y.any()
    assert struck["raw-feed"].x is raw
    shuffled = struck["shuffled-time"].x
    assert not np.array_equal(shuffled, x)
    np.testing.assert_array_equal(np.sort(shuffled, axis=1), np.sort(x, axis=1))
    np.testing.assert_array_equal(struck["label-leak"].x[:, -1, 0], batch.y[:, 0])
    np.testing.assert_array_equal(struck["label-leak"].x[:, :-1], x[:, :-1])
    assert struck["raw-live"].x is raw
    np.testing.assert_array_equal(struck["features-permuted"].x[..., 0], x[..., 3])
    assert np.isnan(struck["feature-nan"].x).sum() == 1
    assert not struck["feature-constant"].x[..., 0].any()
    of_batches = {
        *("exploding-gradient", "vanishing-gradient", "stuck-feed", "raw-feed", "raw-live", "shuffled-time"),
        *("label-leak", "features-permuted", "permuted-live", "feature-nan", "feature-constant"),
    }
    assert {name for name, after in struck.items() if after is not batch} == of_batches
    assert batch.x is x
    assert (batch.weight == 1).all()


def test_the_feed_stays_stuck_at_one_bar():
    fault = FAULTS["stuck-feed"](0)
    first, second = (
        fault.batch(Batch(x, x, np.zeros((2, 1), "float32"), np.ones(2, "float32"))).x
        for x in np.random.default_rng(0).normal(size=(2, 2, 6, 4)).astype("float32")
    )
    np.testing.assert_array_equal(first, second)


def test_targets_that_are_shifted_belong_to_a_neighbouring_bar():
    program = Program(Case("develop", SHAPE, "GOOG", 3, "training", "labels-late", None, 0.0))
    batch = program.batch(1)
    np.testing.assert_allclose(batch.y[:, 0], batch.x[:, -1, 0], atol=0.2)  # the feature is cut off a little earlier
    early = Program(Case("develop", SHAPE, "GOOG", 3, "training", "labels-early", None, 0.0)).batch(1)
    healthy = Program(Case("develop", SHAPE, "GOOG", 3, "training", None, "seed", 0.0)).batch(1)
    np.testing.assert_array_equal(early.x, healthy.x)
    assert (early.y != healthy.y).mean() > 0.9


def test_a_repeated_batch_is_the_first_one_for_ever():
    program = Program(Case("develop", SHAPE, "GOOG", 3, "training", "batch-repeated", None, 0.5))
    drawn = [program.batch(step).x for step in range(1, program.strikes_at + 3)]
    assert np.array_equal(drawn[-1], drawn[-2])
    assert np.array_equal(drawn[-1], drawn[-3])
    assert not np.array_equal(drawn[-3], drawn[-4])


def test_every_fault_that_is_exact_shows_in_more_than_the_loss():
    assert not {name for name, fault in FAULTS.items() if fault.exact and fault.shows == "loss"}


@pytest.fixture(scope="module", params=["keras-lstm-20", "keras-gru-28"])
def keras_network(request):
    import keras

    from bench.faults.keras_network import KerasNetwork
    from bench.faults.keras_runs import policy
    from gatewatch.collector.keras import gates

    shape = SHAPES[request.param]
    model = policy(shape, Setup())
    model.compile(keras.optimizers.Adam(1e-3), loss="mse")
    x = np.random.default_rng(0).normal(size=(4, shape.length, 4)).astype("float32")
    model.train_on_batch(x, np.ones((4, 1)))
    return KerasNetwork(model, lambda: policy(shape, Setup())), model, lambda: gates(model, x)["memory_0"]


def test_units_copied_in_keras_do_the_same(keras_network):
    of, _, gates = keras_network
    FAULTS["units-copied"](0).strike(of, 0)
    half = of.units(0) // 2
    for name, values in gates().items():
        np.testing.assert_allclose(values[..., :half], values[..., half:], atol=1e-6, err_msg=name)


def test_a_layer_reset_in_keras_is_as_new_and_others_stay(keras_network):
    of, model, _ = keras_network
    before = [values.copy() for values in model.get_weights()]
    FAULTS["layer-reset"](0).strike(of, 0)
    after = model.get_weights()
    assert [np.array_equal(one, other) for one, other in zip(before, after, strict=True)] == [False] * 3 + [True] * 2
    np.testing.assert_allclose(after[1] @ after[1].T, np.eye(of.units(0)), atol=1e-5)  # orthogonal
    assert set(np.unique(after[2])) <= {0.0, 1.0}


def test_moments_dropped_in_keras_leave_the_rate_alone(keras_network):
    of, model, _ = keras_network
    optimizer = model.optimizer
    FAULTS["optimizer-reset"](0).strike(of, 0)
    assert int(optimizer.iterations) == 1
    FAULTS["moments-dropped"](0).strike(of, 0)
    assert int(optimizer.iterations) == 0
    assert float(optimizer.learning_rate) == pytest.approx(1e-3)
    held = [np.asarray(v) for v in optimizer.variables if v is not optimizer._learning_rate]
    assert not any(values.any() for values in held)


def test_another_checkpoint_in_keras_replaces_every_weight(keras_network):
    of, model, _ = keras_network
    kernel = model.get_weights()[0].copy()
    FAULTS["other-checkpoint"](0).strike(of, 0)
    assert not np.array_equal(model.get_weights()[0], kernel)
