"""Keras layers whose call does what a look at a model must not do to it. A new mischief is a class in `ZOO`.

`remembered()` gives what a layer, or what it uses, has kept of its calls; and its output depends on it, so that a
training in which it was called once more ends with other weights.
"""

from __future__ import annotations

import functools
import heapq
import itertools
import random
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass, field
from heapq import heappush as push
from random import random as draw_one
from statistics import NormalDist
from types import SimpleNamespace

import keras
import numpy as np
import pandas
from numpy.random import rand

BACKEND = keras.backend.backend()
if BACKEND == "tensorflow":
    import tensorflow as tf
elif BACKEND == "torch":
    import torch


class Mischief(keras.layers.Layer):
    """Adds a number to its input."""

    def call(self, x):
        return x + 0.01 * keras.ops.cast(self.number(x), x.dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def number(self, x):
        raise NotImplementedError

    def remembered(self):
        return None


class SharedRandom(Mischief):
    def number(self, x):
        return random.random() + np.random.rand()

    def remembered(self):
        return random.getstate(), np.random.get_state()[1].tolist()


class HeldRandom(Mischief):
    """Draws from the shared states by other names, and through libraries."""

    def __init__(self):
        super().__init__()
        self.pick = random.choice
        self.draws = (np.random.normal, functools.partial(np.random.randint, 9))
        self.prices = SimpleNamespace(frame=pandas.DataFrame({"close": range(9)}))

    def number(self, x):
        normal, integer = self.draws
        drawn = self.pick([1, 2, 3]) + draw_one() + rand() + normal() + integer()
        return drawn + float(self.prices.frame.sample(1)["close"].iloc[0]) + NormalDist().samples(1)[0]

    def remembered(self):
        return random.getstate(), np.random.get_state()[1].tolist(), np.random.get_state()[2]


class OwnRandom(Mischief):
    def __init__(self):
        super().__init__()
        self.generators = {"python": random.Random(1), "numpy": [np.random.default_rng(2), np.random.RandomState(3)]}

    def number(self, x):
        new, old = self.generators["numpy"]
        return self.generators["python"].random() + new.normal() + old.rand()

    def remembered(self):
        new, old = self.generators["numpy"]
        return self.generators["python"].getstate(), new.bit_generator.state, old.get_state()[1].tolist()


GENERATOR = np.random.default_rng(4)
SEEDS = [keras.random.SeedGenerator(5)]


class RandomOfTheModule(Mischief):
    def number(self, x):
        return GENERATOR.normal() + keras.random.normal((), seed=SEEDS[0])

    def remembered(self):
        return GENERATOR.bit_generator.state, keras.ops.convert_to_numpy(SEEDS[0].state).tolist()


class RandomOfKeras(Mischief):
    def number(self, x):
        return keras.random.normal(())


class Histories(Mischief):
    def __init__(self):
        super().__init__()
        self.history = []
        self.recent = deque(maxlen=3)
        self.by_name = {"calls": 0}
        self.ordered = OrderedDict(first=0, last=0)
        self.plain = SimpleNamespace(lists=defaultdict(list), counted=Counter())  # whose types Keras leaves as they are
        self.seen = {0}

    def number(self, x):
        self.history.append(len(self.history))
        self.recent.append(len(self.history))
        self.by_name["calls"] += 1
        self.ordered.move_to_end("first")
        self.plain.lists["calls"].append([1])
        self.seen.add(len(self.seen))
        self.plain.counted["calls"] += 1
        kept = self.history, self.recent, self.plain.lists["calls"], self.seen
        return sum(map(len, kept)) + self.plain.counted["calls"]

    def remembered(self):
        kept = self.history, self.recent, self.by_name, self.plain, self.seen
        return [str(each) for each in kept], list(self.ordered)


class Indirect(Mischief):
    """Changes containers and attributes without a word that says so where it does."""

    def __init__(self):
        super().__init__()
        self.held = SimpleNamespace(heap=[5], other=[3], orders=[1, 2, 3, 4], lists=defaultdict(list), total=[])
        kept: list[int] = []
        self.keep, self.kept = kept.append, kept.__len__

    def number(self, x):
        heapq.heappush(self.held.heap, len(self.held.heap))
        push(self.held.other, 1)
        random.shuffle(self.held.orders)
        len(self.held.lists[len(self.held.lists)])
        self.held.total += [1]
        self.keep(1)
        return len(self.held.heap) + len(self.held.other) + self.held.orders[0] + len(self.held.lists) + self.kept()

    def remembered(self):
        return repr(self.held), self.kept()


@dataclass
class Account:
    cash: float = 1.0
    trades: list[float] = field(default_factory=list)

    @functools.cached_property
    def begun(self):
        return self.cash

    def __post_init__(self):
        self.count = 0


@dataclass(frozen=True)
class Frozen:
    cash: float = 1.0

    def spend(self):
        object.__setattr__(self, "cash", self.cash * 0.9)
        return self.cash


def counted(call):
    @functools.wraps(call)
    def counting(self, x):
        counting.calls += 1
        return call(self, x) + counting.calls

    counting.calls = 0
    return counting


def spend(account, name):
    setattr(account, name, getattr(account, name) * 0.9)
    return account.cash


class Classes(Mischief):
    """Dataclasses, a decorated method, partial functions, and names that are made at run time."""

    def __init__(self):
        super().__init__()
        self.account, self.frozen, self.again = Account(), Frozen(), Account()
        self.spend = functools.partial(spend, self.account)

    @counted
    def number(self, x):
        self.account.count += 1
        self.again.__init__(self.again.cash * 0.9)
        return self.spend("cash") + self.account.begun + self.frozen.spend() + self.again.cash

    def remembered(self):
        kept = vars(self.account), vars(self.frozen), vars(self.again)
        return [str(each) for each in kept], type(self).number.calls


class InPlace(Mischief):
    def __init__(self):
        super().__init__()
        self.array = np.zeros((2, 70_000))
        self.objects = np.array([[0], [1]], object)
        self.bytes = bytearray(4)

    def number(self, x):
        self.array[:, ::2] += 1
        self.objects[0, 0] += 1
        self.bytes[0] += 1
        return self.array[1, 2] + self.objects[0, 0] + self.bytes[0]

    def remembered(self):
        return self.array.sum(), self.objects.tolist(), bytes(self.bytes)


class Helper:
    __slots__ = ("calls", "extra")

    def __init__(self):
        self.calls = 0

    def count(self):
        self.calls += 1
        self.extra = [self.calls]
        return self.calls


class Helpers(Mischief):
    def __init__(self):
        super().__init__()
        self.nested = ({"helpers": [Helper()]}, SimpleNamespace(calls=0))
        self.counting = self.nested[0]["helpers"][0].count

    def number(self, x):
        self.nested[1].calls += 1
        return self.counting() + self.nested[1].calls

    def remembered(self):
        helper = self.nested[0]["helpers"][0]
        return helper.calls, getattr(helper, "extra", None), self.nested[1].calls


class Attributes(Mischief):
    calls = 0
    kept = []  # noqa: RUF012 - that is the mischief

    def __init__(self):
        super().__init__()
        self.last = None

    def number(self, x):
        type(self).calls += 1
        self.kept.append(self.calls)
        self.last = x
        self.made = len(self.kept)
        return self.calls + self.made

    def remembered(self):
        return type(self).calls, len(Attributes.kept), getattr(self, "made", None)


TOTAL = 0


def counter():
    calls = 0

    def count(seen=[]):  # noqa: B006 - that is the mischief
        nonlocal calls
        global TOTAL  # noqa: PLW0603
        calls += 1
        TOTAL += 1
        seen.append(calls)
        count.calls = getattr(count, "calls", 0) + 1
        return calls + TOTAL + len(seen)

    return count


class Functions(Mischief):
    def __init__(self):
        super().__init__()
        self.count = counter()

    def number(self, x):
        return self.count()

    def remembered(self):
        calls = self.count.__closure__[0].cell_contents if TOTAL else 0
        return TOTAL, len(self.count.__defaults__[0]), getattr(self.count, "calls", 0), calls


class Iterators(Mischief):
    def __init__(self):
        super().__init__()
        self.counting = itertools.count()
        self.entries = iter(list(range(100)))

    def number(self, x):
        return next(self.counting) + next(self.entries)

    def remembered(self):
        return repr(self.counting), self.entries.__length_hint__()


class Variables(Mischief):
    """Counts, keeps a moving average, clamps a parameter, and holds more than 65,536 values."""

    def __init__(self):
        super().__init__()
        self.table = self.add_weight(shape=(70_000,), initializer="zeros", trainable=False)
        self.clamped = self.add_weight(shape=(2,), initializer="ones")
        self.mean = keras.metrics.Mean()

    def number(self, x):
        self.table.assign_add(keras.ops.ones((70_000,)))
        self.clamped.assign(keras.ops.clip(self.clamped, -0.5, 0.5) * 0.9)
        self.mean.update_state(keras.ops.mean(x) + self.table[0])
        return keras.ops.cast(self.table[5] + keras.ops.sum(self.clamped), "float32") + self.mean.result()

    def remembered(self):
        return [keras.ops.convert_to_numpy(v).tolist() for v in (self.table, self.clamped, *self.mean.variables)]


class Averaging(keras.layers.Layer):
    def build(self, input_shape):
        self.average = self.add_weight(shape=(), initializer="ones", trainable=False)

    def call(self, x):
        self.average.assign(0.9 * self.average + 0.1 * keras.ops.mean(x))
        return self.average


OUTSIDE = Averaging()
OUTSIDE.build(None)


class LayerOutside(Mischief):
    """Calls a layer of which the model does not know."""

    def number(self, x):
        return OUTSIDE(x)

    def remembered(self):
        return float(OUTSIDE.average)


class Losses(Mischief):
    def number(self, x):
        self.add_loss(keras.ops.cast(keras.ops.mean(x), "float32") * 0.1)
        return 0.0

    def remembered(self):
        return len(self._losses)


class Loops(Mischief):
    def __init__(self):
        super().__init__()
        self.steps = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def number(self, x):
        def step(carry, each):
            return carry + each, carry

        total, _ = keras.ops.scan(step, keras.ops.zeros(()), keras.ops.ones((4,)))
        (count,) = keras.ops.while_loop(lambda n: n < 3, lambda n: (n + 1,), (keras.ops.zeros(()),))
        self.steps.assign_add(total + count)
        return self.steps

    def remembered(self):
        return float(self.steps)


class LazyWeights(Mischief):
    """Makes what it needs before its first call."""

    def build(self, input_shape):
        kernel = keras.initializers.RandomUniform(seed=7)
        self.inner = keras.layers.Dense(1, kernel_initializer=kernel, dtype=self.dtype_policy)
        self.drop = keras.layers.Dropout(0.5, seed=6)
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def number(self, x):
        self.calls.assign_add(1.0)
        return keras.ops.mean(self.inner(self.drop(x, training=True))) + self.calls

    def remembered(self):
        return [keras.ops.convert_to_numpy(v).tolist() for v in self.variables]


if BACKEND == "tensorflow":

    class OfTheBackend(Mischief):
        def __init__(self):
            super().__init__()
            self.own = tf.Variable(0.0, trainable=False)
            self.raw = self.add_weight(shape=(2,), initializer="zeros", trainable=False, autocast=False)
            self.generator = tf.random.Generator.from_seed(8)

        @tf.function
        def compiled(self, x):
            self.own.assign_add(1.0)
            self.raw.assign(self.raw + 0.5)
            return self.raw[0] + self.own

        def number(self, x):
            self.raw.value.assign_add([1.0, 1.0])
            drawn = tf.random.normal(()) + tf.random.normal((), seed=9) + self.generator.normal(())
            return self.compiled(x) + drawn + tf.random.get_global_generator().normal(())

        def remembered(self):
            shared = tf.random.get_global_generator().state.numpy().tolist()
            return float(self.own), self.raw.numpy().tolist(), self.generator.state.numpy().tolist(), shared

elif BACKEND == "torch":

    class OfTheBackend(Mischief):
        def __init__(self):
            super().__init__()
            self.plain = torch.zeros(2)
            self.raw = self.add_weight(shape=(70_000,), initializer="zeros", trainable=False, autocast=False)
            self.generator = torch.Generator().manual_seed(8)
            self.module = torch.nn.BatchNorm1d(3)

        def number(self, x):
            if x.is_meta:  # Keras finds out the shapes
                return 0.0
            self.plain += 1
            self.raw.value.data.add_(1)
            self.raw.value.detach().numpy()[0] += 1
            self.module.module.num_batches_tracked += 1
            self.module.train()
            drawn = torch.rand(()) + torch.rand((), generator=self.generator)
            return self.plain[0] + self.raw.value[0] + drawn + self.module.module.num_batches_tracked

        def remembered(self):
            state = torch.get_rng_state().tolist(), self.generator.get_state().tolist()
            return state, self.plain.tolist(), self.raw.value.tolist(), int(self.module.module.num_batches_tracked)


ZOO = [
    SharedRandom,
    HeldRandom,
    OwnRandom,
    Histories,
    Indirect,
    Classes,
    InPlace,
    Helpers,
    Attributes,
    Functions,
    Iterators,
    Losses,
    Loops,
]
if BACKEND != "jax":  # where a call that is compiled cannot do these
    ZOO += [RandomOfTheModule, RandomOfKeras, Variables, LayerOutside, LazyWeights, OfTheBackend]


class Policy(keras.Model):
    """A recurrent network between layers of the zoo."""

    def __init__(self, kinds=ZOO):
        super().__init__(name="policy")
        self.mischief = [kind() for kind in kinds]
        self.memory = keras.layers.LSTM(4, dropout=0.3, name="memory")
        self.head = keras.layers.Dense(1, name="head")

    def build(self, input_shape):  # Keras's own way makes a call without values, which not all of these can stand
        self.memory.build(input_shape)
        self.head.build((None, 4))

    def call(self, x, training=False):
        for layer in self.mischief:
            x = layer(x)
        return self.head(self.memory(x, training=training))
