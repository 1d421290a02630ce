"""The recurrences as the papers have them: one sequence, one step, one gate at a time, in float64.

Written without a look at the replay, and slow: it is what the replay is held to.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

FUNCTIONS: dict[str, Callable[[float], float]] = {
    "tanh": math.tanh,
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "hard_sigmoid": lambda x: min(max((x + 3) / 6, 0), 1),
    "relu": lambda x: max(x, 0.0),
    "linear": lambda x: x,
    "elu": lambda x: x if x > 0 else math.exp(x) - 1,
    "selu": lambda x: 1.0507009873554805 * (x if x > 0 else 1.6732632423543772 * (math.exp(x) - 1)),
    "softplus": lambda x: math.log1p(math.exp(x)),
    "softsign": lambda x: x / (1 + abs(x)),
    "silu": lambda x: x / (1 + math.exp(-x)),
    "hard_silu": lambda x: x * min(max((x + 3) / 6, 0), 1),
    "exponential": math.exp,
    "relu6": lambda x: min(max(x, 0.0), 6.0),
    "leaky_relu": lambda x: x if x > 0 else 0.2 * x,
    "mish": lambda x: x * math.tanh(math.log1p(math.exp(x))),
    "log_sigmoid": lambda x: -math.log1p(math.exp(-x)),
    "hard_tanh": lambda x: min(max(x, -1.0), 1.0),
}


def lstm(x, kernel, recurrent, bias, activation, recurrent_activation, mask=None, reverse=False, state=None):
    """Gates by name, (batch, time, units), and the outputs with the state carried over masked steps."""
    units = recurrent.shape[0]
    act = np.vectorize(FUNCTIONS[activation], otypes=[float])
    rec = np.vectorize(FUNCTIONS[recurrent_activation], otypes=[float])
    names = ("input", "forget", "candidate", "cell", "output", "hidden")
    gates = {name: np.full((*x.shape[:2], units), np.nan) for name in names}
    outputs = np.zeros((*x.shape[:2], units))
    parts = [slice(k * units, (k + 1) * units) for k in range(4)]
    bias = np.zeros(4 * units) if bias is None else bias.astype(float)
    for n in range(x.shape[0]):
        h = np.zeros(units) if state is None else state[0][n].astype(float)
        c = np.zeros(units) if state is None else state[1][n].astype(float)
        for t in sorted(range(x.shape[1]), reverse=reverse):
            if mask is None or mask[n, t]:
                i, f, g, o = (
                    x[n, t].astype(float) @ kernel[:, p].astype(float) + h @ recurrent[:, p].astype(float) + bias[p]
                    for p in parts
                )
                i, f, g, o = rec(i), rec(f), act(g), rec(o)
                c = f * c + i * g
                h = o * act(c)
                for name, value in zip(names, (i, f, g, c, o, h), strict=True):
                    gates[name][n, t] = value
            outputs[n, t] = h
    return gates, outputs


def gru(
    x, kernel, recurrent, bias, activation, recurrent_activation, reset_after, mask=None, reverse=False, state=None
):
    """Gates by name, (batch, time, units), and the outputs with the state carried over masked steps."""
    units = recurrent.shape[0]
    act = np.vectorize(FUNCTIONS[activation], otypes=[float])
    rec = np.vectorize(FUNCTIONS[recurrent_activation], otypes=[float])
    names = ("update", "reset", "candidate", "hidden")
    gates = {name: np.full((*x.shape[:2], units), np.nan) for name in names}
    outputs = np.zeros((*x.shape[:2], units))
    z_, r_, g_ = [slice(k * units, (k + 1) * units) for k in range(3)]
    both = np.zeros((2, 3 * units))
    if bias is not None:
        both[: np.atleast_2d(bias).shape[0]] = np.atleast_2d(bias)
    b, rb = both
    kernel, recurrent = kernel.astype(float), recurrent.astype(float)
    for n in range(x.shape[0]):
        h = np.zeros(units) if state is None else state[0][n].astype(float)
        for t in sorted(range(x.shape[1]), reverse=reverse):
            if mask is None or mask[n, t]:
                v = x[n, t].astype(float)
                z = rec(v @ kernel[:, z_] + b[z_] + h @ recurrent[:, z_] + rb[z_])
                r = rec(v @ kernel[:, r_] + b[r_] + h @ recurrent[:, r_] + rb[r_])
                if reset_after:
                    g = act(v @ kernel[:, g_] + b[g_] + r * (h @ recurrent[:, g_] + rb[g_]))
                else:
                    g = act(v @ kernel[:, g_] + b[g_] + (r * h) @ recurrent[:, g_])
                h = z * h + (1 - z) * g
                for name, value in zip(names, (z, r, g, h), strict=True):
                    gates[name][n, t] = value
            outputs[n, t] = h
    return gates, outputs
