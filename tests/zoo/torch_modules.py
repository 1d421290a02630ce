"""torch modules whose forward changes more than it returns. A new mischief is a class here, with `@mischief`.

Each takes a batch (4, 6, 3) and gives (4, 2). What it changes shows in its outputs, so that a training to which it was
done once more ends with other weights.
"""

from __future__ import annotations

import collections
import contextvars
import functools
import io
import itertools
import random
import threading
import types
import weakref

import numpy as np
import pandas as pd
import torch
from torch import nn

MISCHIEF: dict[str, type[Base]] = {}


def mischief(module: type[Base]) -> type[Base]:
    """Put a class into the zoo."""
    MISCHIEF[module.__name__] = module
    return module


class Base(nn.Module):
    """An LSTM and a head; `change` is called with the last hidden state, and gives what is added to it."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 5, batch_first=True)
        self.head = nn.Linear(5, 2)
        self.begin()

    def begin(self) -> None:
        """Make what is changed."""

    def change(self, hidden):
        """Change it."""
        return 0.0

    def forward(self, x):
        """Return (4, 2)."""
        hidden = self.lstm(x)[0][:, -1]
        return self.head(hidden + self.change(hidden))


# Random numbers.


@mischief
class PythonsRandom(Base):
    def change(self, hidden):
        return random.random()


@mischief
class NumpysRandom(Base):
    def change(self, hidden):
        return float(np.random.rand())


@mischief
class TorchsRandom(Base):
    def change(self, hidden):
        return torch.rand(5)


@mischief
class DrawnByLibraries(Base):
    """Draws by what torch and others have, and by functions that it holds."""

    def begin(self):
        self.pool = nn.FractionalMaxPool2d(1, output_size=(1, 1))
        self.seed, self.noise, self.scores = np.random.seed, torch.randn_like, pd.Series(range(5))

    def change(self, hidden):
        pooled = self.pool(hidden[None, None].expand(1, 1, -1, -1)).mean()
        sampled = torch.distributions.Normal(0.0, 1.0).sample()
        drawn = self.noise(hidden) + nn.Linear(5, 5)(hidden) + nn.functional.dropout(hidden, training=True)
        return pooled + sampled + drawn + float(self.scores.sample(1).iloc[0])


class DrawnWhenMade:
    """Draws whenever one is made, and so when it is copied."""

    def __init__(self):
        self.number = random.random() + float(np.random.rand()) + float(torch.rand(()))

    def __reduce__(self):
        return DrawnWhenMade, ()


@mischief
class DrawnByCopies(Base):
    """A copy of what it holds draws."""

    def begin(self):
        self.drawn = DrawnWhenMade()


@mischief
class Reseeded(Base):
    """Seeds what everybody draws from."""

    def begin(self):
        self.seed, self.calls = np.random.seed, 0

    def change(self, hidden):
        self.calls += 1
        self.seed(self.calls)
        return float(np.random.rand())


@mischief
class Local(Base):
    """Counts in what each thread has of its own."""

    def begin(self):
        self.own = threading.local()
        self.own.calls = LOCAL.calls = 0

    def change(self, hidden):
        LOCAL.calls += 1
        self.own.calls += 1
        return 0.1 * LOCAL.calls + 0.01 * self.own.calls


@mischief
class OwnGenerators(Base):
    def begin(self):
        self.generators = {
            "python": random.Random(1),
            "numpy": np.random.default_rng(2),
            "old": np.random.RandomState(3),
        }
        self.torchs = torch.Generator().manual_seed(4)

    def change(self, hidden):
        drawn = self.generators["python"].random() + self.generators["numpy"].random() + self.generators["old"].rand()
        return float(drawn) + torch.rand(5, generator=self.torchs)


@mischief
class BoundDraw(Base):
    def begin(self):
        self.draw = random.Random(5).random

    def change(self, hidden):
        return self.draw()


# Memories.


@mischief
class History(Base):
    def begin(self):
        self.history = []

    def change(self, hidden):
        self.history.append(hidden)  # part of a graph
        return len(self.history) * 0.1


@mischief
class Containers(Base):
    def begin(self):
        self.deque, self.set, self.dict = collections.deque(maxlen=3), set(), collections.defaultdict(int)
        self.nested = [{"counts": [0]}]

    def change(self, hidden):
        self.dict["calls"] += 1
        self.deque.append(self.dict["calls"])
        self.set.add(self.dict["calls"])
        self.nested[0]["counts"][0] += 1
        return 0.1 * (sum(self.deque) + len(self.set) + self.nested[0]["counts"][0])


@mischief
class Iterators(Base):
    def begin(self):
        self.count, self.list = itertools.count(), iter(range(1000))

    def change(self, hidden):
        return 0.1 * (next(self.count) + next(self.list))


@mischief
class Attributes(Base):
    def begin(self):
        self.calls, self.state = 0, None

    def change(self, hidden):
        self.calls += 1
        mean = hidden.detach().mean(0)
        self.state = mean if self.state is None else 0.5 * self.state + mean
        self.__dict__.setdefault("first", self.calls)
        return self.state * self.calls * 0.1


class Slotted:
    __slots__ = ("calls", "owner")


@mischief
class Helper(Base):
    __slots__ = ("steps",)

    def begin(self):
        self.steps = [0]
        self.helper, self.slotted = types.SimpleNamespace(calls=0), Slotted()
        self.helper.owner, self.slotted.calls, self.slotted.owner = self, 0, weakref.ref(self)  # circles

    def change(self, hidden):
        self.steps[0] += 1
        self.helper.calls += self.steps[0]
        self.slotted.owner().slotted.calls += 1
        return 0.1 * (self.helper.owner.helper.calls + self.slotted.calls)


@mischief
class Closures(Base):
    def begin(self):
        calls, seen = 0, []

        def count(by=1, cache={}):  # noqa: B006 - that is the mischief
            nonlocal calls
            calls += by
            seen.append(calls)
            cache["calls"] = cache.get("calls", 0) + by
            count.calls = getattr(count, "calls", 0) + by
            return calls + len(seen) + cache["calls"] + count.calls

        self.count, self.partial = count, functools.partial(count, 2)
        self.own = lambda: self.lstm.weight_hh_l0.detach().sum()
        self.bound, self.push = self._bound, seen.append
        self.cached = functools.lru_cache(self._bound)

    def _bound(self, by=1):
        self.calls = getattr(self, "calls", 0) + by
        return self.calls

    def change(self, hidden):
        self.push(1)
        return 0.01 * (self.count() + self.partial() + self.bound() + self.cached(3) + float(self.own()))


@mischief
class Hooks(Base):
    def begin(self):
        calls = []
        self.lstm.register_forward_hook(lambda module, inputs, output: calls.append(1))
        self.head.register_forward_pre_hook(lambda module, inputs: (inputs[0] + 0.1 * len(calls),))


# Values changed in place.


@mischief
class Tensors(Base):
    def begin(self):
        self.plain, self.array, self.rows = torch.zeros(5), np.zeros(5, np.float32), [torch.zeros(5)]
        self.register_buffer("large", torch.zeros(70_000))
        self.register_buffer("view", torch.zeros(2, 5))
        self.row = self.view[1]
        self.learnt = torch.zeros(5, requires_grad=True)

    def change(self, hidden):
        self.plain.add_(0.1)
        self.array += 0.1
        self.rows[0].data += 0.1
        self.large.data[:5] += 0.1
        self.large.numpy()[:5] += 0.1
        self.row += 0.1  # of the buffer's memory
        self.learnt.data.add_(0.1)
        return self.plain + torch.tensor(self.array) + self.rows[0] + self.large[:5] + self.view[1] + self.learnt


@mischief
class Parameters(Base):
    def begin(self):
        self.codebook = nn.Parameter(torch.zeros(5), requires_grad=False)

    def change(self, hidden):
        with torch.no_grad():
            self.codebook.lerp_(hidden.mean(0).float(), 0.1)  # bfloat16 under autocast
            self.lstm.weight_ih_l0.data.clamp_(-0.3, 0.3)
            self.lstm.bias_ih_l0.data.mul_(0.99)
        return self.codebook


@mischief
class Optimizer(Base):
    def begin(self):
        self.inner = nn.Linear(5, 5)
        self.optimizer = torch.optim.Adam(self.inner.parameters(), 0.01)

    def change(self, hidden):
        with torch.enable_grad():
            self.inner.zero_grad()
            self.inner(hidden.detach()).square().mean().backward()
        self.optimizer.step()
        return self.inner(hidden.detach()).detach()


@mischief
class Inputs(Base):
    def forward(self, x):
        x = x.sub_(0.1) if not x.requires_grad else x
        return super().forward(x)


@mischief
class Modules(Base):
    def change(self, hidden):
        self.add_module(f"extra{len(self._modules)}", nn.Identity())
        self.lstm.train(self.training)
        return 0.1 * len(self._modules)


@mischief
class Normalised(Base):
    def begin(self):
        self.norm = nn.BatchNorm1d(5)
        self.head = nn.utils.parametrizations.weight_norm(nn.utils.spectral_norm(nn.Linear(5, 2)), "bias")

    def change(self, hidden):
        return self.norm(hidden)


@mischief
class Mode(Base):
    def begin(self):
        self.modes = []

    def train(self, mode=True):
        self.modes = [*getattr(self, "modes", []), mode]
        return super().train(mode)

    def change(self, hidden):
        torch.set_grad_enabled(torch.is_grad_enabled())
        return 0.1 * len(self.modes)


@mischief
class Closed(Base):
    def begin(self):
        self.open = [True]

    def __del__(self):
        self.open[0] = False

    def change(self, hidden):
        return float(self.open[0])


# Classes.


class Registry(type):
    """A metaclass that counts its classes."""

    classes = 0

    def __init__(cls, *arguments, **options):
        super().__init__(*arguments, **options)
        Registry.classes += 1


class Exact(nn.LSTM, metaclass=Registry):
    """A layer that counts its subclasses, and asks for its class."""

    subclasses = 0

    def __init_subclass__(cls):
        Exact.subclasses += 1

    def forward(self, x):
        if type(self) is not Exact:
            raise TypeError(f"{type(self)} is another class")
        return super(self.__class__, self).forward(x)


@mischief
class Registered(Base, metaclass=Registry):
    def begin(self):
        Registry.classes = Exact.subclasses = 0
        self.lstm = Exact(3, 5, batch_first=True)

    def __init_subclass__(cls):
        Exact.subclasses += 1

    def __del__(self):
        Registry.classes += 1
        Exact.subclasses += 1

    def change(self, hidden):
        if type(self) is not Registered or type(self.head) is not nn.Linear:
            raise TypeError(f"{type(self)} is another class")
        saved = io.BytesIO()
        torch.save(self, saved)  # by the name of its class
        return 0.1 * (Registry.classes + Exact.subclasses)


# What lies outside of the module.

CALLS = 0
HISTORY: list[torch.Tensor] = []
KEPT: dict[str, object] = {}
WEIGHT = torch.zeros(5)
TABLE = np.zeros(5, np.float32)
LOCAL = threading.local()
DRAW = random.Random(6)


STEP: contextvars.ContextVar[int] = contextvars.ContextVar("STEP")


def count(by):
    global CALLS  # noqa: PLW0603 - that is the mischief
    CALLS += by
    return CALLS


@mischief
class Globals(Base):
    def begin(self):
        global CALLS  # noqa: PLW0603
        CALLS = 0
        HISTORY.clear()
        KEPT.clear()
        TABLE[:] = 0
        WEIGHT.zero_()
        DRAW.seed(6)
        STEP.set(0)

    def change(self, hidden):
        HISTORY.append(hidden)
        KEPT[f"self {count(1)}"] = self
        KEPT["last"] = self
        TABLE[0] += 1
        WEIGHT.add_(0.1)
        STEP.set(STEP.get() + 1)
        counted = STEP.get() + CALLS + len(HISTORY) + len(KEPT) + float(TABLE[0])
        return 0.1 * (counted % 11 + DRAW.random()) + WEIGHT


@functools.cache
def noise(size):
    return 0.1 * torch.rand(size)


class Counted(type):
    """A metaclass that counts what is set in its classes."""

    changes = 0

    def __setattr__(cls, name, value):
        Counted.changes += 1
        super().__setattr__(name, value)


@mischief
class Caches(Base):
    def begin(self):
        for cached in (noise, Caches.first, Caches.second):
            cached.cache_clear()

    @functools.lru_cache  # noqa: B019 - that is the mischief
    def first(self, size):
        return 0.1 * torch.rand(size)

    @staticmethod
    @functools.lru_cache(maxsize=2)
    def second(size):
        return 0.1 * torch.rand(size)

    def change(self, hidden):
        return noise(5) + self.first(5) + self.second(5) + 0.1 * Caches.first.cache_info().currsize


class Counter:
    """Counts in its class and in a function of its module."""

    made = 0

    def __init__(self):
        Counter.made += 1

    def __call__(self):
        return Counter.made + count(2)


@mischief
class Classes(Base, metaclass=Counted):
    calls = 0
    seen: list[int] = []  # noqa: RUF012 - that is the mischief

    def begin(self):
        global CALLS  # noqa: PLW0603
        CALLS = Classes.calls = Counter.made = 0
        Counted.changes = 0
        Classes.seen.clear()
        self.counter, self.kind = Counter(), Counter

    def change(self, hidden):
        type(self).calls += 1
        self.seen.append(Classes.calls)
        self.kind()
        return 0.01 * (self.calls + len(Classes.seen) + Counted.changes + self.counter())


def remember(module, inputs, output):
    HISTORY.append(output)


def register(module):
    return nn.modules.module.register_module_forward_hook(remember)


@mischief
class GlobalHooks(Base):
    def begin(self):
        HISTORY.clear()
        nn.modules.module._global_forward_hooks.clear()
        self.head.register_forward_hook(remember)

    def change(self, hidden):
        register(self)
        number = len(nn.modules.module._global_forward_hooks)
        if number > 2:
            nn.modules.module._global_forward_hooks.clear()
        return 0.01 * (len(HISTORY) % 11 + number)


class WholeZoo(nn.Module):
    """All of the zoo side by side, for trainings in which one kind of mischief at a time would take too long."""

    def __init__(self, names=MISCHIEF):
        super().__init__()
        self.all = nn.ModuleDict({name: MISCHIEF[name]() for name in sorted(names)})

    def forward(self, x):
        """Return (4, 2)."""
        return sum(module(x) for module in self.all.values()) / len(self.all)
