"""The parts of `make soak` that run in one process: random networks, data, models, environments,
settings and scores, each with an expectation that is computed independently of the package.
"""

import copy
import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete
from PIL import Image
from stable_baselines3 import A2C, PPO
from test_baselines import Softer, Spaces, Squares
from test_settings_have_an_effect import IMAGES, METHODS, POLICY, RL, SINE
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.utils import parametrizations

import metarl
from metarl.baselines.stable_baselines import load_model
from metarl.config.sections import SHARED
from metarl.envs import check_family, vectorise
from metarl.errors import UserError
from metarl.evaluation import mean_over_tasks
from metarl.experiment import override_config
from metarl.inner_loop import adapt
from metarl.intervals import difference, mean_over_runs
from metarl.method import load_method
from metarl.networks.module import FunctionalModule
from metarl.rl.policies import policy_for
from metarl.supervised.datasets.pixels import to_pixels


@dataclass
class Part:
    """The outcome of a part of the soak.

    Attributes:
        done: the number of checks.
        failures: one message per failure.
        notes: figures for the report.
    """

    done: int = 0
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def expect(self, holds: bool, sentence: str) -> None:
        """Count a check, and record the message if it fails."""
        self.done += 1
        if not holds:
            self.failures.append(sentence)

    def attempt(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """The result; None where a `UserError` refuses it. Any other exception is a failure."""
        try:
            return function(*arguments)
        except UserError as error:
            self.expect(bool(str(error).strip()), f"{name}: an empty message")
        except Exception as error:  # noqa: BLE001  what is looked for
            self.expect(False, f"{name}: {type(error).__name__}: {str(error)[:300]}")
        return None


# networks


class Lambda(nn.Module):
    """A layer around others whose forward is a function of them and the inputs."""

    def __init__(self, function: Callable[..., Tensor], **members: Any) -> None:
        super().__init__()
        self.function = function
        for name, member in members.items():
            setattr(self, name, member)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


class Cube(torch.autograd.Function):
    """Its second derivative is lost, and it has no rule for vmap."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3 / 10

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        return 0.3 * ctx.saved_tensors[0] ** 2 * grad


def outcome(config: Any) -> list[Tensor]:
    """All that a short training and its evaluation compute."""
    method = load_method(config)
    state = method.initial_state()
    results: list[Any] = [method.num_iterations, method.max_samples, method.uses_lr_schedule]
    while state.iteration < min(2, method.num_iterations):
        state, metrics = method.step(state)
        results += [value for name, value in metrics.items() if not name.startswith("time/")]
    curve = method.evaluate(state.params)
    method.close()
    leaves = [*state.params.values(), *state.opt_state.values()]
    arrays = [np.asarray(curve.scores), np.asarray(curve.step_sizes), np.asarray(results, float)]
    return [*leaves, *map(torch.from_numpy, arrays)]


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    """Whether two outcomes are equal."""
    return len(first) == len(second) and all(map(torch.equal, first, second))


def count_calls(net: Any, x: Tensor) -> Tensor:
    net.calls += 1.0
    return x * net.calls


def attention(net: Any, x: Tensor) -> Tensor:
    tokens = x.unflatten(1, (2, 2))
    return net.layer(tokens, tokens, tokens)[0].flatten(1)


def frozen(layer: nn.Module) -> nn.Module:
    return layer.requires_grad_(False)


def tokens(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Unflatten(1, (2, 2)), *layers, nn.Flatten())


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(4, 4),
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "prelu": nn.PReLU,
    "softmax": lambda: nn.Softmax(-1),
    "layer norm": lambda: nn.LayerNorm(4),
    "layer norm without parameters": lambda: nn.LayerNorm(4, elementwise_affine=False),
    "rms norm": lambda: nn.RMSNorm(4),
    "batch norm": lambda: nn.BatchNorm1d(4, track_running_stats=False),
    "running batch norm": lambda: nn.BatchNorm1d(4),
    "batch norm in evaluation": lambda: nn.BatchNorm1d(4).eval(),
    "group norm": lambda: nn.GroupNorm(2, 4),
    "instance norm": lambda: tokens(nn.InstanceNorm1d(2, affine=True)),
    "convolution": lambda: tokens(nn.Conv1d(2, 2, 3, padding=1)),
    "transposed convolution": lambda: tokens(nn.ConvTranspose1d(2, 2, 3, padding=1)),
    "pooling": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 4)), nn.AvgPool1d(2), nn.Upsample(scale_factor=2.0), nn.Flatten()
    ),
    "transformer": lambda: tokens(
        nn.TransformerEncoderLayer(2, 1, 3, dropout=0.0, batch_first=True)
    ),
    "transformer, norm first": lambda: tokens(
        nn.TransformerEncoderLayer(2, 2, 3, 0.0, "gelu", batch_first=True, norm_first=True)
    ),
    "attention": lambda: Lambda(
        attention, layer=nn.MultiheadAttention(2, 1, batch_first=True, bias=False)
    ),
    "weight norm": lambda: parametrizations.weight_norm(nn.Linear(4, 4)),
    "old weight norm": lambda: nn.utils.weight_norm(nn.Linear(4, 4)),
    "spectral norm": lambda: parametrizations.spectral_norm(nn.Linear(4, 4)),
    "spectral norm in evaluation": lambda: parametrizations.spectral_norm(nn.Linear(4, 4)).eval(),
    "orthogonal": lambda: parametrizations.orthogonal(nn.Linear(4, 4)),
    "dropout": lambda: nn.Dropout(0.5),
    "no dropout": lambda: nn.Dropout(0.0),
    "lstm": lambda: Lambda(lambda net, x: net.layer(x)[0], layer=nn.LSTM(4, 4)),
    "gru cell": lambda: nn.GRUCell(4, 4),
    "bilinear": lambda: Lambda(lambda net, x: net.layer(x, x), layer=nn.Bilinear(4, 4, 4)),
    "residual": lambda: Lambda(lambda net, x: x + net.layer(x), layer=nn.Linear(4, 4)),
    "twice": lambda: Lambda(lambda net, x: net.layer(net.layer(x).tanh()), layer=nn.Linear(4, 4)),
    "keyword": lambda: Lambda(lambda net, x: net.layer(input=x), layer=nn.Linear(4, 4)),
    "function": lambda: Lambda(
        lambda net, x: nn.functional.linear(x, net.layer.weight, net.layer.bias),
        layer=nn.Linear(4, 4),
    ),
    "frozen": lambda: frozen(nn.Linear(4, 4)),
    "frozen scale": lambda: Lambda(
        lambda net, x: x * net.scale, scale=nn.Parameter(torch.rand(4), requires_grad=False)
    ),
    "scale": lambda: Lambda(lambda net, x: x * net.scale, scale=nn.Parameter(torch.rand(()))),
    "unused": lambda: Lambda(lambda net, x: x, scale=nn.Parameter(torch.rand(3))),
    "without gradients": lambda: Lambda(
        lambda net, x: x + torch.no_grad()(net.layer)(x), layer=nn.Linear(4, 4)
    ),
    "float": lambda: Lambda(lambda net, x: x.float()),
    "half": lambda: Lambda(lambda net, x: x.half()),
    "hidden list": lambda: Lambda(lambda net, x: net.layers[0](x), layers=[nn.Linear(4, 4)]),
    "noise": lambda: Lambda(lambda net, x: x + torch.randn_like(x)),
    "memory": lambda: Lambda(count_calls, calls=0.0),
    "in place": lambda: nn.SiLU(inplace=True),
    "in-place sum": lambda: Lambda(lambda net, x: x.add_(1.0)),
    "custom function": lambda: Lambda(lambda net, x: Cube.apply(x)),
    "checkpointed": lambda: Lambda(
        lambda net, x: torch.utils.checkpoint.checkpoint(net.layer, x, use_reentrant=False),
        layer=nn.Linear(4, 4),
    ),
    "control flow": lambda: Lambda(lambda net, x: x if float(x.sum()) > 0.0 else -x),
    "einsum": lambda: Lambda(
        lambda net, x: torch.einsum("bi,ij->bj", x, net.layer.weight), layer=nn.Linear(4, 4)
    ),
    "cumulative sum": lambda: Lambda(lambda net, x: x.cumsum(-1)),
    "sorted": lambda: Lambda(lambda net, x: x.sort(-1).values),
    "distance": lambda: Lambda(
        lambda net, x: torch.cdist(x, net.layer.weight), layer=nn.Linear(4, 4)
    ),
    "normalised": lambda: Lambda(lambda net, x: nn.functional.normalize(x)),
    "lazy": lambda: nn.LazyLinear(4),
}
SHARINGS = ("none", "none", "second name", "tied weights", "layer in a list")


class RandomNetwork(nn.Module):
    """A network of named layers between two linear ones, initialised by a seed.

    `sharing` registers the first layer under a second name, or ties the weights of two layers.
    """

    def __init__(
        self,
        inputs: int = 2,
        outputs: int = 1,
        layers: tuple[str, ...] = (),
        sharing: str = "none",
        seed: int = 0,
    ) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.first = nn.Linear(inputs, 4)
            self.between = nn.ModuleList(LAYERS[name]() for name in layers)
            self.extra = nn.Linear(4, 4)
            self.last = nn.Linear(4, outputs)
        if sharing == "second name":
            self.alias = self.last
        if sharing == "layer in a list":
            self.names = nn.ModuleList([self.extra, self.first])
        if sharing == "tied weights":
            self.second = nn.Linear(4, 4)
            self.second.weight = self.extra.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).tanh()
        for layer in self.between:
            x = layer(x)
        x = self.extra(x).tanh()
        if hasattr(self, "second"):
            x = self.second(x).tanh()
        return self.last(x)


def adapted_loss(net: nn.Module, tasks: Tensor, step_size: float) -> float:
    """Σ over tasks of the loss after one step of `torch.optim.SGD`; the module is unchanged."""
    total, leaves = 0.0, [leaf for leaf in net.parameters() if leaf.requires_grad]
    start = [leaf.detach().clone() for leaf in leaves]
    optimizer = torch.optim.SGD(leaves, step_size)
    for support, query in tasks:
        optimizer.zero_grad()
        (net(support) - 1.0).square().mean().backward()
        optimizer.step()
        with torch.no_grad():
            total += float((net(query) - 1.0).square().mean())
            for leaf, value in zip(leaves, start, strict=True):
                leaf.copy_(value)
    return total


def slope(net: nn.Module, leaf: Tensor, direction: Tensor, tasks: Tensor) -> float | None:
    """The derivative of `adapted_loss` along a direction of one leaf; None at a kink."""
    slopes = []
    for size in (1e-4, 5e-5):
        values = []
        for sign in (1.0, -1.0):
            with torch.no_grad():
                leaf += sign * size * direction
            values.append(adapted_loss(net, tasks, 0.1))
            with torch.no_grad():
                leaf -= sign * size * direction
        slopes.append((values[0] - values[1]) / (2.0 * size))
    first, second = slopes
    # error O(h²), of which the finer step has a quarter
    return second if abs(first - second) < 1e-5 * (1.0 + abs(second)) else None


def meta_gradient(form: str, network: FunctionalModule, theta: Any, tasks: Tensor) -> Any:
    """The gradient of `adapted_loss` by the package: by leaf."""
    support, query = tasks.unbind(1)

    def loss(params: Any, inputs: Tensor) -> Tensor:
        # stacked tasks are summed, so that each has its own gradient
        return (network(params, inputs) - 1.0).square().mean((-1, -2)).sum()

    leaves = {name: leaf.clone().requires_grad_() for name, leaf in theta.items()}
    if form == "stacked":
        stacked = {name: leaf.expand(len(tasks), *leaf.shape) for name, leaf in leaves.items()}
        value = loss(adapt(loss, stacked, [support], 0.1), query)
    elif form == "vmap":
        value = vmap(lambda x, y: loss(adapt(loss, leaves, [x], 0.1), y))(support, query).sum()
    else:  # a plain module by torch's own functional_call
        net = copy.deepcopy(network.module)

        def plain(params: Any, inputs: Tensor) -> Tensor:
            return (functional_call(net, params, (inputs,)) - 1.0).square().mean()

        with torch.no_grad():
            for name, leaf in net.named_parameters():
                if name in theta:
                    leaf.copy_(theta[name])
        leaves = {name: leaf for name, leaf in net.named_parameters() if name in theta}
        value = vmap(lambda x, y: plain(adapt(plain, net, [x], 0.1), y))(support, query).sum()
    gradients = torch.autograd.grad(
        value, list(leaves.values()), allow_unused=True, materialize_grads=True
    )
    return dict(zip(leaves, gradients, strict=True))


def networks(folder: Path, count: int, chance: random.Random) -> Part:
    """Random networks: refused, or with the meta-gradient of a plain loop, and trained as a whole.

    The expectation are finite differences, in double precision, of a step of `torch.optim.SGD`.
    """
    part, accepted, skipped = Part(), 0, 0
    for _ in range(count):
        layers = tuple(chance.choices(list(LAYERS), k=chance.randint(0, 3)))
        settings = {
            "layers": layers,
            "sharing": chance.choice(SHARINGS),
            "seed": chance.randrange(2**31),
        }
        name = f"{settings}"
        converts = "float" in layers  # a forward in single precision only
        generator = torch.Generator().manual_seed(chance.randrange(2**31))

        def construct(settings: Any = settings, converts: bool = converts) -> nn.Module:
            net = RandomNetwork(**settings)
            return net if converts else net.double()

        network = FunctionalModule("random", construct, (2,), 1)
        theta = part.attempt(name, network.init, generator)
        if theta is None:
            continue
        accepted += 1
        kept = tuple(layer for layer in layers if layer != "float")
        net = RandomNetwork(**{**settings, "layers": kept})
        with torch.no_grad():
            net(torch.zeros(3, 2))  # lazy layers
        net = net.double()
        # scales of one and shifts of zero would hide a wrong derivative
        theta = {
            n: p + 0.1 * torch.randn(p.shape, generator=generator).to(p.dtype)
            for n, p in theta.items()
        }
        # without "float" the places of layers differ, but not their order
        leaves = [leaf for leaf in net.parameters() if leaf.requires_grad]
        with torch.no_grad():
            for leaf, value in zip(leaves, theta.values(), strict=True):
                leaf.copy_(value)
        tasks = torch.randn(2, 2, 5, 2, generator=generator).double()
        form = chance.choice(["stacked", "vmap", "plain"])
        inputs = tasks.float() if converts else tasks
        arguments = form, network, theta, inputs
        gradient = part.attempt(f"{form} {name}", meta_gradient, *arguments)
        if gradient is None:
            continue
        norm = float(torch.cat([leaf.flatten() for leaf in gradient.values()]).norm())
        for (leaf_name, value), leaf in zip(gradient.items(), leaves, strict=True):
            direction = torch.randn(leaf.shape, generator=generator).double()
            # differences of values that are rounded to 11 bits are no derivative
            expected = None if "half" in layers else slope(net, leaf, direction, tasks)
            if expected is None:
                skipped += 1
                continue
            found = float((value.double() * direction).sum())
            tolerance = (2e-3 if converts else 1e-5) * (1.0 + norm)
            part.expect(
                abs(found - expected) < tolerance,
                f"{form} {name}: {leaf_name} has the slope {found:.6g} instead of {expected:.6g}",
            )
        part.attempt(f"training {name}", _expect_trained, part, settings, name)
    part.notes.append(f"{accepted} of {count} accepted, {skipped} slopes at kinks left out")
    return part


def _expect_trained(part: Part, settings: dict[str, Any], name: str) -> None:
    """One iteration of training changes every parameter that has an effect on the outputs."""
    config = metarl.SupervisedConfig(
        data={"name": "sinusoid"},
        network={"kind": f"{__name__}:RandomNetwork", "settings": settings},
        outer={"iterations": 1, "meta_batch": 2},
    )
    method = load_method(config)
    state = method.initial_state()
    trained = method.step(state)[0].params
    network, x = method.problem.network, torch.linspace(-5.0, 5.0, 40).unsqueeze(-1)
    params = {leaf: value.clone().requires_grad_() for leaf, value in state.params.items()}
    before = network(params, x)
    gradients = torch.autograd.grad(
        (before - 1.0).square().sum(), list(params.values()), allow_unused=True
    )
    for (leaf, value), gradient in zip(state.params.items(), gradients, strict=True):
        shifted = {**state.params, leaf: value + 0.1 * torch.randn(value.shape)}
        # the norm of two numbers is a step function: an effect, but a gradient below Adam's epsilon
        flat = gradient is not None and float(gradient.abs().max()) < 1e-8
        if not flat and float((network(shifted, x) - before).detach().abs().max()) > 1e-3:
            part.expect(
                not torch.equal(trained[leaf], value), f"{name}: {leaf} has an effect, untrained"
            )


# statistics


def statistics(folder: Path, count: int, chance: random.Random) -> Part:
    """Intervals of 95% cover the truth in 93 to 97% of simulated evaluations.

    Welch's cover 91% or more; 87% where one side has two runs.
    """
    part, columns, lowest = Part(), 4000, 1.0
    for _ in range(count):
        rng = np.random.default_rng(chance.randrange(2**31))
        tasks, noise = chance.randint(2, 60), chance.choice([0.1, 1.0, 5.0])
        center: Any = rng.normal(size=(tasks, 1))
        runs = [chance.choice([1, 2, 3, 5, 8, 12]) for _ in range(2)]
        shared = chance.random() < 0.5
        spread = chance.choice([0.0, 0.3, 2.0])
        spreads = [spread, spread if 1 in runs or shared else chance.choice([0.0, 0.3, 2.0])]

        def scores(
            number: int, spread: float, rng: Any = rng, c: Any = center, noise: float = noise
        ) -> list[Any]:
            size = len(c), columns
            return [
                c + spread * rng.normal(size=(1, columns)) + noise * rng.normal(size=size)
                for _ in range(number)
            ]

        # of one run each, the interval is over tasks: their difference has no shift of a seed
        runs_of = map(scores, runs, [0.0, 0.0] if runs == [1, 1] else spreads)
        summary, low, truth = difference(*runs_of), 0.93, 0.0
        if 1 not in runs:  # Welch's
            low = 0.87 if 2 in runs else 0.91
        what = f"difference of {runs} runs, spreads {spreads}, {tasks} tasks, noise {noise}"
        kind = chance.choice(["difference", "runs", "tasks"])
        if kind == "runs":
            number = max(2, runs[0])
            summary, low, truth = mean_over_runs(scores(number, spread)), 0.93, center.mean()
            what = f"mean of {number} runs, spread {spread}, {tasks} tasks, noise {noise}"
        elif kind == "tasks":
            values = rng.normal(3.0, noise, (tasks, columns))
            summary, low, truth = mean_over_tasks(values), 0.93, 3.0
            what = f"mean of {tasks} tasks"
        covered = float(((summary.low <= truth) & (truth <= summary.high)).mean())
        high = 1.0 if low < 0.93 else 0.97
        lowest = min(lowest, covered)
        part.expect(low <= covered <= high, f"{what}: covers {100 * covered:.1f}%")
    part.notes.append(f"the lowest coverage was {100 * lowest:.1f}%")
    return part


# images and labels


def pixels_of(rng: np.random.Generator, chance: random.Random) -> tuple[Any, Any, str]:
    """A random image in some form; its RGB or grey bytes where it must be accepted, else None.

    Forms without an expectation must be refused.
    """
    height, width = chance.choice([(5, 5), (4, 7), (9, 6)])
    grey = rng.integers(0, 256, (height, width), dtype=np.uint8)
    colour = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    values = chance.choice([grey, colour])
    unit = values / 255.0
    opaque = np.full((height, width, 1), 255, np.uint8)
    clear = rng.integers(0, 255, (height, width, 1), dtype=np.uint8)
    deep = grey.astype(np.uint16) * 256 + chance.randrange(256)
    palette = Image.fromarray(grey).convert("P")
    hole = palette.copy()
    hole.info["transparency"] = int(grey[0, 0])
    bits = grey > 128
    doubled = np.concatenate([grey[..., None]] * 2, -1)
    forms: dict[str, tuple[Callable[[], Any], Any]] = {
        "PIL": (lambda: Image.fromarray(values), values),
        "PIL opaque": (lambda: Image.fromarray(np.concatenate([colour, opaque], -1)), colour),
        "PIL transparent": (lambda: Image.fromarray(np.concatenate([colour, clear], -1)), None),
        "PIL LA": (lambda: Image.fromarray(np.concatenate([grey[..., None], opaque], -1)), grey),
        "PIL LA clear": (lambda: Image.fromarray(np.dstack([grey, clear])), None),
        "PIL 16 bits": (lambda: Image.fromarray(deep), np.rint(deep / 257).astype(np.uint8)),
        "PIL 32 bits": (lambda: Image.fromarray(grey.astype(np.int32)), None),
        "PIL floats": (lambda: Image.fromarray((grey / 255).astype(np.float32)), grey),
        "PIL large floats": (lambda: Image.fromarray(grey.astype(np.float32)), None),
        "PIL bits": (lambda: Image.fromarray(bits), np.uint8(255) * bits),
        "PIL palette": (lambda: palette, np.asarray(palette.convert("RGB"))),
        "PIL palette with a hole": (lambda: hole, None),
        "CMYK": (lambda: Image.fromarray(colour).convert("CMYK"), colour),
        "bytes": (lambda: values, values),
        "bytes, writable tensor": (lambda: torch.from_numpy(values.copy()), values),
        "bytes as lists": (lambda: unit.tolist(), values),
        "booleans": (lambda: bits, np.uint8(255) * bits),
        "zeros": (lambda: 0.0 * unit, 0 * values),
        "16 bits": (lambda: deep, None),
        "integers": (lambda: values.astype(np.int64), None),
        "floats to 255": (lambda: values.astype(np.float32) + 2.0, None),
        "normalised": (lambda: unit * 2.0 - 1.0, None if unit.min() < 0.5 else values),
        "NaN": (lambda: np.where(unit < 0.5, np.nan, unit), None),
        "complex": (lambda: unit.astype(np.complex64), None),
        "two channels": (lambda: doubled, None),
        "a row": (lambda: grey[0], None),
        "a batch": (lambda: colour[None], None),
        "empty": (lambda: grey[:0], None),
        "text": (lambda: "cat.png", None),
        "nothing": (lambda: None, None),
        "objects": (lambda: values.astype(object), None),
    }
    for dtype in (np.float16, np.float32, np.float64):
        forms[f"{dtype.__name__}"] = (lambda d=dtype: unit.astype(d), values)
        forms[f"{dtype.__name__} tensor"] = (
            lambda d=dtype: torch.from_numpy(unit.astype(d)).requires_grad_(),
            values,
        )
    name = chance.choice(list(forms))
    make, expected = forms[name]
    image = make()
    if isinstance(image, np.ndarray | Tensor) and image.ndim == 3 and chance.random() < 0.5:
        image = np.moveaxis(image, 2, 0) if isinstance(image, np.ndarray) else image.movedim(2, 0)
        name += ", channels first"
    is_png = isinstance(image, Image.Image) and image.mode not in ("F", "I", "CMYK")
    if is_png and chance.random() < 0.5:
        with tempfile.NamedTemporaryFile(suffix=".png") as file:
            image.save(file.name)
            image = Image.open(file.name)
            image.load()
        name += ", from a file"
    return image, expected, f"{name} {values.shape}"


def grey_or_colour(values: Any, channels: int) -> Any:
    """ITU-R 601-2 luma, as PIL computes it; or the same value in three channels."""
    if values.ndim == 2:
        return np.stack([values] * channels, -1)
    if channels == 3:
        return values
    luma = values.astype(np.int64) @ [19595, 38470, 7471] + 0x8000
    return (luma >> 16).astype(np.uint8)[..., None]


LABELS: list[tuple[str, Callable[[int], Any], bool]] = [
    ("integer", lambda k: k, True),
    ("numpy integer", np.int16, True),
    ("tensor", lambda k: torch.tensor(k), True),
    ("tensor of one", lambda k: torch.tensor([k]), True),
    ("text", lambda k: f"class {k}", True),
    ("numpy text", lambda k: np.str_(f"class {k}"), True),
    ("fraction", lambda k: k + 0.5, False),
    ("fractional tensor", lambda k: torch.tensor(k + 0.5), False),
    ("one-hot", lambda k: np.eye(9)[k], False),
    ("nothing", lambda k: None, False),
    ("bytes", lambda k: b"class", False),
    ("NaN", lambda k: float("nan"), False),
    ("list", lambda k: [k], False),
    ("complex", lambda k: complex(k), False),
]


def images(folder: Path, count: int, chance: random.Random) -> Part:
    """Random images and labels: converted as an independent formula does, or refused."""
    part, accepted = Part(), 0
    for number in range(count):
        rng = np.random.default_rng(chance.randrange(2**31))
        image, expected, name = pixels_of(rng, chance)
        channels, size = chance.choice([1, 3]), chance.choice([5, 8])
        found = part.attempt(name, to_pixels, image, size, channels, "it")
        if found is None or expected is None:
            part.expect((found is None) == (expected is None), f"{name}: wrongly accepted, refused")
        else:
            accepted += 1
            # PIL resizes the colours and converts them before
            source = Image.fromarray(grey_or_colour(expected, channels).squeeze())
            same = np.asarray(source.resize((size, size), Image.Resampling.LANCZOS))
            error = np.abs(found.squeeze().astype(int) - same.astype(int)).max()
            part.expect(error <= ("float16" in name), f"{name}: off by {error} of 255")
        kind, label, is_valid = chance.choice(LABELS)
        pixels = np.full((4, 4), 200, np.uint8)
        pairs = [(pixels, label(k)) for k in (3, 1, 2, 3)]
        if number % 7 == 0:  # labels of two kinds
            pairs.append((pixels, 4 if "text" in kind else "4"))
            is_valid = False
        section = metarl.Dataset.of(pairs, size=4, channels=1)
        data = part.attempt(kind, lambda s=section: s.images)
        part.expect((data is not None) == is_valid, f"label {kind}: wrongly accepted or refused")
        if data is not None:
            counts = np.diff(data.starts).tolist()
            names = [f"class {k}" if "text" in kind else str(k) for k in (1, 2, 3)]
            same = counts == [1, 1, 2] and [*data.classes] == names
            part.expect(same, f"label {kind}: classes {data.classes}, {counts}")
    part.notes.append(f"{accepted} images of {count} converted")
    return part


def predicted(network: Any, inputs: Any, targets: Any, queries: Any) -> Any:
    return network.adapt(inputs, targets).predict(queries)


# forms of inputs and labels that must be refused, and those that depend on the values
WRONG = {"complex", "text", "objects", "percent", "signed bytes", "larger", "column", "fraction"}
AMBIGUOUS = {"unsigned"}


def predictions(folder: Path, count: int, chance: random.Random) -> Part:
    """Predictions do not depend on the type of inputs and labels that have the same values."""
    part = Part()
    rng = np.random.default_rng(chance.randrange(2**31))
    bytes_ = rng.integers(0, 256, (40, 1, 6, 6), dtype=np.uint8)
    pairs = [(image[0], number % 8) for number, image in enumerate(bytes_)]
    sections = {
        "inner": {"shots": 2, "queries": 2},
        "outer": {"iterations": 1, "meta_batch": 2},
        "evaluation": {"tasks": 2, "steps": 2},
    }
    data = metarl.Dataset.of(pairs, ways=2, size=6, channels=1)
    network = {"kind": "mlp", "hidden_sizes": [8]}
    config = metarl.SupervisedConfig(data=data, network=network, **sections)
    classifier = metarl.load_network(metarl.train(config, folder / "images"))
    config = metarl.SupervisedConfig(data="sinusoid", network=network, **sections)
    regressor = metarl.load_network(metarl.train(config, folder / "sinusoid"))
    as_arrays: dict[str, Callable[[Any], Any]] = {
        "double": lambda x: x.astype(np.float64),
        "half": lambda x: x.astype(np.float16),
        "bfloat16": lambda x: torch.from_numpy(x).bfloat16(),
        "tensor": lambda x: torch.from_numpy(x).requires_grad_(),
        "lists": lambda x: x.tolist(),
        "list of tensors": lambda x: [*torch.from_numpy(x)],
        "big endian": lambda x: x.astype(">f4"),
        "reversed memory": lambda x: np.ascontiguousarray(x[::-1])[::-1],
        "integers": lambda x: x.astype(np.int64),
        "unsigned": lambda x: x.astype(np.uint8),
        "booleans": lambda x: x.astype(bool),
        "complex": lambda x: x.astype(np.complex64),
        "text": lambda x: x.astype(str),
        "objects": lambda x: x.astype(object),
        "percent": lambda x: 100 * x,
    }
    as_bytes: dict[str, Callable[[Any], Any]] = {
        "bytes": lambda x: x,
        "byte tensor": torch.from_numpy,
        "PIL": lambda x: [Image.fromarray(i[0]) for i in x],
        "PIL RGB": lambda x: [Image.fromarray(i[0]).convert("RGB") for i in x],
        "PIL 16 bits": lambda x: [Image.fromarray(i[0].astype(np.uint16) * 257) for i in x],
        "PIL RGBA": lambda x: [Image.fromarray(i[0]).convert("RGBA") for i in x],
        "signed bytes": lambda x: x.astype(np.int16),
        "larger": lambda x: np.repeat(x, 2, -1),
    }
    as_labels: dict[str, Callable[[Any], Any]] = {
        "list": lambda y: y.tolist(),
        "floats": lambda y: y.astype(np.float32),
        "half": lambda y: torch.from_numpy(y).half(),
        "bytes": lambda y: y.astype(np.uint8),
        "booleans": lambda y: y.astype(bool),
        "tensor": torch.from_numpy,
        "column": lambda y: y[:, None],
        "fraction": lambda y: y + 0.25,
        "text": lambda y: y.astype(str),
    }
    lossy, refused = ("half", "bfloat16"), 0
    for _ in range(count):
        index = np.array(chance.sample(range(40), 7))
        labels = np.array([0, 1, chance.randrange(2), chance.randrange(2)])
        x = bytes_[index].astype(np.float32) / np.float32(255)
        form, query_form = (chance.choice([*as_arrays, *as_bytes]) for _ in range(2))
        bytes_used = bytes_[index]
        if {form, query_form} & {"integers", "unsigned", "booleans"} or chance.random() < 0.3:
            x, bytes_used = np.round(x), (255 * (bytes_used > 127)).astype(np.uint8)
        label_form = chance.choice(list(as_labels))

        def inputs(form: str, part: slice, x: Any = x, b: Any = bytes_used) -> Any:
            return as_arrays[form](x[part]) if form in as_arrays else as_bytes[form](b[part])

        expected = classifier.adapt(x[:4], labels).predict(x[4:])
        what = f"images as {form}, labels as {label_form}, queries as {query_form}"
        examples = inputs(form, slice(0, 4)), as_labels[label_form](labels)
        queries = inputs(query_form, slice(4, 7))
        found = part.attempt(what, predicted, classifier, *examples, queries)
        refused += found is None
        forms = {form, query_form, label_form}
        if forms & WRONG:
            part.expect(found is None, f"{what}: accepted")
        elif not forms & AMBIGUOUS:
            part.expect(found is not None, f"{what}: refused")
        if found is not None:
            tolerance = 0.05 if {form, query_form} & {*lossy} else 1e-5
            error = np.abs(found - expected).max()
            part.expect(error < tolerance, f"{what}: predictions off by {error:.2g}")
        points = rng.integers(-3, 4, (6, 1)).astype(np.float32)  # exact in every type
        form = chance.choice([name for name in as_arrays if name not in ("unsigned", "booleans")])
        expected = regressor.adapt(points[:4], points[2:]).predict(points)
        x, y, queries = map(as_arrays[form], (points[:4], points[2:], points))
        found = part.attempt(form, predicted, regressor, x, y, queries)
        if found is not None and form != "percent":
            part.expect(np.abs(found - expected).max() < 1e-5, f"points as {form}: other results")
    part.notes.append(f"{refused} of {count} refused")
    return part


# models of stable-baselines3


def load_scaled(
    path: Path, env: Spaces, sizes: tuple[int, ...], activation: str, chance: random.Random
) -> Any:
    """A policy, the parameters of a model, and random factors for the policy's observations."""
    policy, scale = policy_for(env.observation_space, env.action_space, sizes, activation), None
    if chance.random() < 0.3:
        scale = [chance.uniform(0.2, 5.0) for _ in range(policy.observation_size)]
    return policy, load_model(path, policy, scale)[0], scale


def models(folder: Path, count: int, chance: random.Random) -> Part:
    """Random models of stable-baselines3: refused, or the action distribution of the model."""
    part, accepted = Part(), 0
    observation_spaces = [
        Box(-1.0, 1.0, (4,)),
        Box(-np.inf, np.inf, (3,), np.float64),
        Box(-1.0, 1.0, (2, 2)),
        Box(0, 255, (3,), np.uint8),
        Box(0, 255, (36, 36, 1), np.uint8),
        Box(0, 1, (1, 3, 3)),
        Discrete(5),
        MultiDiscrete([2, 3]),
        MultiBinary(3),
        Dict(x=Box(-1.0, 1.0, (2,)), y=Discrete(3)),
    ]
    action_spaces = [
        Box(-1.0, 1.0, (2,)),
        Box(np.array([-2.0, 0.0], np.float32), np.array([1.0, 9.0], np.float32)),
        Discrete(3),
        Discrete(3, start=-1),
        MultiDiscrete([2, 3]),
        MultiDiscrete([5]),
        MultiBinary(3),
    ]
    plain = {"activation_fn": [nn.Tanh, nn.ReLU]}
    for number in range(count):
        path = folder / f"model-{number}.zip"
        is_plain = chance.random() < 0.3  # which must be accepted
        spaces = observation_spaces[:3] if is_plain else observation_spaces
        env = Spaces(chance.choice(action_spaces[:2] if is_plain else action_spaces))
        env.observation_space = chance.choice(spaces)
        sizes = chance.choices([3, 8, 16], k=chance.randint(0, 3))
        keywords: dict[str, Any] = {
            "net_arch": chance.choice([sizes, {"pi": sizes, "vf": [5]}]),
            "activation_fn": chance.choice(
                plain["activation_fn"]
                if is_plain
                else [nn.Tanh, nn.ReLU, nn.Tanh, nn.ELU, nn.GELU, nn.LeakyReLU, nn.SiLU, Softer]
            ),
            "log_std_init": chance.uniform(-2.0, 1.0),
            "ortho_init": chance.random() < 0.5,
        }
        settings: dict[str, Any] = {}
        oddities: dict[str, Callable[[], object]] = {
            "noise of the state": lambda s=settings: s.update(use_sde=True),
            "squashed": lambda s=settings, k=keywords: (
                s.update(use_sde=True),
                k.update(squash_output=True),
            ),
            "a tiny deviation": lambda k=keywords: k.update(log_std_init=-20.0),
            "another extractor": lambda k=keywords: k.update(
                features_extractor_class=Squares, features_extractor_kwargs={"features_dim": 4}
            ),
            "extractors apart": lambda k=keywords: k.update(share_features_extractor=False),
            "images as they are": lambda k=keywords: k.update(normalize_images=False),
        }
        odd = chance.choice(list(oddities)) if not is_plain and chance.random() < 0.4 else ""
        if odd:
            oddities[odd]()
        kind = "MultiInputPolicy" if isinstance(env.observation_space, Dict) else "MlpPolicy"
        algorithm = chance.choice([PPO, A2C])
        what = (
            f"{algorithm.__name__} with {keywords} {settings}, {env.observation_space}, "
            f"{env.action_space}"
        )
        try:
            model = algorithm(
                kind,
                env,
                policy_kwargs=keywords,
                device="cpu",
                seed=chance.randrange(2**31),
                **settings,
            )
        except Exception:  # noqa: BLE001  stable-baselines3 refuses the combination itself
            continue
        with torch.no_grad():
            for leaf in model.policy.parameters():
                leaf += 0.2 * torch.randn_like(leaf)
        model.save(path)
        activation = {nn.ReLU: "relu"}.get(keywords["activation_fn"], "tanh")
        arguments = path, env, tuple(sizes), activation, chance
        loaded = part.attempt(what, load_scaled, *arguments)
        path.unlink()
        if loaded is None:
            part.expect(not is_plain, f"{what}: refused")
            continue
        accepted += 1
        policy, params, scale = loaded
        env.observation_space.seed(chance.randrange(2**31))
        for _ in range(3):
            observation = env.observation_space.sample()
            flat = np.float32(gym.spaces.flatten(env.observation_space, observation))
            with torch.no_grad():
                inputs, _ = model.policy.obs_to_tensor(observation)
                expected = model.policy.get_distribution(inputs).distribution
                scaled = torch.from_numpy(flat * np.float32(scale or 1.0))
                found = policy.distribution(params, scaled.unsqueeze(0))
            if "mean" in found:
                pairs = [
                    (found["mean"], expected.mean),
                    (found["log_std"].exp().expand_as(expected.stddev), expected.stddev),
                ]
            else:
                parts = expected if isinstance(expected, list) else [expected]
                pairs = [(found["logits"], torch.cat([p.logits for p in parts], -1))]
            same = all(torch.allclose(a, b, rtol=1e-4, atol=1e-4) for a, b in pairs)
            part.expect(same, f"{what}, scale {scale}: other actions at {flat}")
    part.notes.append(f"{accepted} of {count} models accepted")
    return part


# environments


class RandomEnv(gym.Env):
    """A point that moves towards a task; a fault replaces what reset or step returns at time `at`.

    Attributes:
        plan: the settings that `random_family` draws.
    """

    def __init__(self, plan: dict[str, Any]) -> None:
        self.plan, size = plan, plan["size"]
        self.observation_space = Box(-100.0, 100.0, (size,), plan["dtype"])
        self.action_space = plan["action_space"]

    def observe(self) -> Any:
        return np.resize(np.append(self.x, self.t), self.plan["size"]).astype(self.plan["dtype"])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if self.plan["fault"] != "task":
            self.task = np.asarray((options or {}).get("task", self.__dict__.get("task", 0.0)))
        else:
            self.task = np.ones(1)
        self.t, self.x = 0, self.np_random.normal()
        return self.faulty("reset", [self.observe(), {}])

    def step(self, action):
        self.t += 1
        push = np.sum(action) if isinstance(action, np.ndarray) else float(action) - 0.5
        self.x = float(np.clip(self.x + 0.1 * np.clip(push, -1.0, 1.0), -5.0, 5.0))
        if self.plan["noisy"]:
            self.x += 0.01 * self.np_random.normal()
        distance = abs(self.x - float(np.sum(self.task)))
        reward = {"dense": -distance, "sparse": float(distance < 0.3), "survival": 1.0}
        terminated = self.t >= self.plan["ends_at"]
        truncated = self.t >= self.plan["horizon"]
        values = [self.observe(), reward[self.plan["reward"]], terminated, truncated, {}]
        return self.faulty("step", values)

    def faulty(self, method: str, values: list[Any]) -> Any:
        """The values that a method returns, with the fault of the plan."""
        kind, fault, at = self.plan["method"], self.plan["fault"], self.plan["at"]
        if kind != method or (method == "step" and self.t != at):
            return tuple(values)
        match fault:
            case "raise":
                raise ZeroDivisionError("of the user")
            case "too few":
                return values[0] if len(values) == 2 else tuple(values[:-1])
            case "global noise":
                values[0] = values[0] + np.random.normal()  # noqa: NPY002  the fault
            case "observation shape":
                values[0] = np.append(values[0], 0.0).astype(values[0].dtype)
            case "observation type":
                values[0] = values[0].astype(str)
            case "observation bounds":
                values[0] = values[0] + values[0].dtype.type(1000)
            case "observation NaN":
                values[0] = values[0].astype(np.float32) * np.nan
            case "info":
                values[-1] = None
            case "reward":
                values[1] = self.plan["value"]
            case "end":
                values[self.plan["value"]] = "no"
        return tuple(values)


RESET_FAULTS = ["raise", "too few", "global noise", "observation shape", "observation type"]
RESET_FAULTS += ["observation bounds", "observation NaN", "info"]
STEP_FAULTS = [*RESET_FAULTS, "reward", "end"]
FAMILY_FAULTS: dict[str, list[Any]] = {
    # members of a family, and what replaces them
    "sample_tasks": [
        lambda rng, n: np.ones((n, 1)),
        lambda rng, n: np.full((n, 1), np.nan),
        lambda rng, n: rng.normal(size=n),
        lambda rng, n: rng.normal(size=(n + 1, 1)),
        lambda rng, n: np.random.normal(size=(n, 1)),  # noqa: NPY002  the fault
        lambda rng, n: rng.normal(size=(n, 7)),
        lambda rng, n: [["a"]] * n,
        lambda rng, n: rng.absent(),
        lambda n: np.ones((n, 1)),
    ],
    "describe": [lambda task: None, lambda task: task, lambda task: {}["x"], lambda: "x"],
    "make": [lambda render_mode=None: None, lambda render_mode=None: 1 / 0, lambda: None],
    "make_vec": [lambda n: None, lambda n: [], lambda n: 1 / 0],
    "horizon": [0, -1, 2.5, "10", None],
    "task_size": [0, 3, "1", None, 2.5],
}


class RandomFamily:
    """A family of `RandomEnv`, members of which a fault replaces."""

    def __init__(self, plan: dict[str, Any], **members: Any) -> None:
        self.plan, self.horizon, self.task_size = plan, plan["horizon"], plan["task_size"]
        vars(self).update(members)

    def sample_tasks(self, rng, num_tasks):
        return rng.uniform(-1.0, 1.0, (num_tasks, self.plan["task_size"]))

    def describe(self, task):
        return f"go to {task.sum():.2f}"

    def make(self, render_mode=None):
        env = RandomEnv(self.plan)
        wrapper = self.plan["wrapper"]
        return env if wrapper is None else wrapper(env)

    def make_vec(self, num_envs):
        return vectorise(self.make, num_envs)


def random_family(chance: random.Random, fault: tuple[str, Any] | None) -> RandomFamily:
    horizon = chance.randint(1, 12)
    method, which = fault or ("", "")
    numbers = [None, "1", np.nan, np.inf, np.zeros(1), [1.0], 1j]
    ends_at = chance.choice([horizon + 1, chance.randint(1, horizon)])
    wrappers = [None, None, lambda env: gym.wrappers.TimeLimit(env, horizon)]
    plan = {
        "horizon": horizon,
        "task_size": 1 if method in ("sample_tasks", "task_size") else chance.randint(1, 3),
        "size": chance.randint(1, 4),
        "dtype": chance.choice([np.float32, np.float64]),
        "action_space": chance.choice(
            [Discrete(2), MultiDiscrete([2, 3]), Box(-1.0, 1.0, (2,)), Box(-np.inf, np.inf, (1,))]
        ),
        "noisy": chance.random() < 0.3,
        "reward": chance.choice(["dense", "sparse", "survival"]),
        "ends_at": ends_at,
        # a time limit overwrites the value with the fault
        "wrapper": None if which == "end" else chance.choice(wrappers),
        "method": method,
        "fault": which,
        "at": chance.randint(1, min(horizon, ends_at)),
        "value": chance.choice(numbers if which == "reward" else [2, 3]),
    }
    return RandomFamily(plan, **({method: which} if method in FAMILY_FAULTS else {}))


def environments(folder: Path, count: int, chance: random.Random) -> Part:
    """Random families: `check_family` names the method with a fault, and passes those without."""
    part, refused = Part(), 0
    faults: list[tuple[str, Any]] = [("reset", fault) for fault in [*RESET_FAULTS, "task"]]
    faults += [("step", fault) for fault in STEP_FAULTS]
    faults += [(member, fault) for member, values in FAMILY_FAULTS.items() for fault in values]
    for _ in range(count):
        fault = chance.choice(faults) if chance.random() < 0.7 else None
        family = random_family(chance, fault)
        what = f"fault {fault} in {family.plan}"
        try:
            check_family(family)
            part.expect(fault is None, f"{what}: accepted")
        except UserError as error:
            refused += 1
            part.expect(fault is not None, f"{what}: refused: {error}")
            if fault is not None and fault[1] != "global noise":
                named = fault[0] in str(error) and "\n" not in str(error)
                part.expect(named, f"{what}: blames something else: {error}")
        except Exception as error:  # noqa: BLE001  what is looked for
            part.expect(False, f"{what}: {type(error).__name__}: {error}")
    part.notes.append(f"{refused} of {count} refused")
    return part


# settings


# values that have an effect wherever their setting has one, in a training of two iterations
SETTINGS: dict[str, list[Any]] = {
    "inner.step_size": [0.05, 0.3],
    "inner.steps": [1, 3],
    "inner.optimizer": ["momentum", "adam"],
    "inner.clip": [1e-3],
    "inner.first_order": [True],
    "inner.adapt": ["head"],
    "inner.learned_step_sizes": ["lslr", "meta_sgd"],
    "outer.schedule": ["linear", "cosine", "exponential"],
    "outer.warmup": [2, 5],
    "outer.meta_batch": [3],
    "outer.learning_rate": [0.02],
    "outer.weight_decay": [0.1],
    "outer.max_grad_norm": [1e-3],
    "outer.clip": [1e-4],
    "outer.iterations": [1],
    "evaluation.tasks": [3],
    "evaluation.seed": [5],
    "evaluation.steps": [1, 5],
}
SETTINGS_OF_POLICIES: dict[str, list[Any]] = {
    "inner.gamma": [0.5],
    "inner.gae_lambda": [0.5],
    "inner.estimator": ["log_likelihood"],
    "inner.baseline": ["time", "linear_prior"],
    "inner.episodes_per_task": [3],
    "outer.max_kl": [0.2],
    "outer.damping": [0.5],
    "evaluation.step_sizes": [[0.2], [0.3, 0.1]],
    "evaluation.episodes_per_task": [3],
    "policy.hidden_sizes": [[5]],
    "policy.activation": ["tanh"],
    "policy.init_std": [0.5],
    "policy.min_std": [2.0],
    "policy.output_scale": [0.1],
    "baseline.step_sizes": [[0.3]],
    "baseline.learning_rate": [0.01],
}
SETTINGS_OF_WAVES: dict[str, list[Any]] = {
    "inner.shots": [4],
    "inner.queries": [4],
    "inner.multi_step_iterations": [5],
    "network.hidden_sizes": [[5]],
    "network.activation": ["tanh"],
    "evaluation.shots": [2],
    "evaluation.queries": [2],
    "precision": ["bf16"],
    "method.loss": ["huber"],
    "baseline.step_sizes": [[0.3]],
}


# a trust region refuses most steps on the smaller batches of `POLICY`
POLICIES = {
    **POLICY,
    "inner": {**POLICY["inner"], "episodes_per_task": 10},
    "outer": {**POLICY["outer"], "meta_batch": 4},
}


def settings(folder: Path, count: int, chance: random.Random) -> Part:
    """A random method with random settings: each is refused, or changes what a training computes.

    A method may share settings with the methods it is compared with (`SHARED`).
    """
    part, accepted = Part(), 0
    methods = [pair for pair in METHODS if pair[1] not in IMAGES]
    for _ in range(count):
        domain, method = chance.choice(methods)
        table = SETTINGS | (SETTINGS_OF_POLICIES if domain == "rl" else SETTINGS_OF_WAVES)
        *preceding, name = chance.sample(list(table), k=chance.randint(1, 3))
        overrides = [f"method={method}", *(f"{n}={chance.choice(table[n])}" for n in preceding)]
        has_trpo = domain == "supervised" or "trpo" in RL.load(method).outer_steps
        if not has_trpo or (domain == "rl" and chance.random() < 0.5):
            overrides.append("outer.algorithm=adam")
        setting = f"{name}={chance.choice(table[name])}"
        sections = POLICIES if domain == "rl" else SINE
        before, changed = (
            part.attempt(" ".join(values), override_config, sections, values)
            for values in (overrides, [*overrides, setting])
        )
        # a value that equals the default is not set
        if before is None or changed is None or before == changed:
            continue
        accepted += 1
        # with one seed, a trust region may refuse both steps
        what = " ".join([*overrides, setting])
        has_effect = name in SHARED or name.startswith("baseline.")
        for seed in range(3):
            pair = (config.model_copy(update={"seed": seed}) for config in (before, changed))
            try:
                has_effect = has_effect or not same(*map(outcome, pair))
            except FloatingPointError as error:
                has_effect = bool(str(error))
            except Exception as error:  # noqa: BLE001  what is looked for
                part.expect(False, f"{what}: {type(error).__name__}: {error}")
                break
        part.expect(has_effect, f"{what}: {name} has no effect")
    part.notes.append(f"{accepted} of {count} combinations accepted")
    return part


# divergence


STEP_SIZES = ("inner.step_size", "outer.learning_rate", "outer.max_kl", "baseline.learning_rate")
CLOUDS = {**SINE, "data": "my_data:Blobs"}


def divergence(folder: Path, count: int, chance: random.Random) -> Part:
    """A random method with step sizes up to 1e30 ends with a sentence, or all results are finite.

    Combinations that are refused do not count.
    """
    part, diverged = Part(), 0
    while part.done < count:
        domain, method = chance.choice(METHODS)
        sections = CLOUDS if method in IMAGES else {"rl": POLICIES, "supervised": SINE}[domain]
        names = chance.sample(STEP_SIZES, k=chance.randint(1, 2))
        embeds = method in IMAGES - {"mann", "nearest_neighbour"}
        overrides = [f"method={{name: {method}, ways: 3}}" if embeds else f"method={method}"]
        overrides += ["outer.algorithm=adam"][: chance.randint(0, 1)]
        overrides += [f"{name}={10.0 ** chance.uniform(-1.0, 30.0):g}" for name in names]
        try:
            config = override_config(sections, overrides)
        except UserError:
            continue
        what = " ".join(overrides)
        try:
            tensors = outcome(config)
            finite = all(bool(torch.isfinite(tensor).all()) for tensor in tensors)
            part.expect(finite, f"{what}: a result is not finite")
        except FloatingPointError as error:
            diverged += 1
            part.expect(bool(str(error)) and "\n" not in str(error), f"{what}: {error!r}")
        except Exception as error:  # noqa: BLE001  what is looked for
            part.expect(False, f"{what}: {type(error).__name__}: {error}")
    part.notes.append(f"{diverged} of {count} diverged")
    return part
