"""The parameters that the optimizers are measured on.

Names that end in "w" are of weight matrices: the last two axes.
"""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np

Shapes = dict[str, tuple[int, ...]]

# Weights and biases of small layers, 64 to 4,096 elements each.
_SMALL = [(64, 64), (64,), (32, 64), (128,), (16, 64), (96,), (64, 32), (256,)]


def small(leaves: int) -> Shapes:
    """A deep network of small layers, eight shapes repeating."""
    shapes = [_SMALL[i % len(_SMALL)] for i in range(leaves)]
    return {f"leaf_{i:04}.{'bw'[len(s) > 1]}": s for i, s in enumerate(shapes)}


def tiny(leaves: int) -> Shapes:
    """Next to no arithmetic: what a step costs then is the cost of the call."""
    return {f"leaf_{i:04}": (i % 8 + 1,) for i in range(leaves)}


def square(leaves: int, side: int) -> Shapes:
    """A few large square matrices."""
    return {f"leaf_{i}.w": (side, side) for i in range(leaves)}


def dense(*widths: int) -> Shapes:
    """A multilayer perceptron."""
    layers = enumerate(itertools.pairwise(widths))
    return {
        f"layer_{i}.{name}": shape
        for i, (m, n) in layers
        for name, shape in {"w": (m, n), "b": (n,)}.items()
    }


def block(width: int) -> Shapes:
    """A block of GPT-2: two norms, attention and a perceptron, 12 leaves."""
    norm = {"scale": (width,), "bias": (width,)}
    parts = {
        "norm_1": norm,
        "qkv": {"w": (width, 3 * width), "b": (3 * width,)},
        "out": {"w": (width, width), "b": (width,)},
        "norm_2": norm,
        "up": {"w": (width, 4 * width), "b": (4 * width,)},
        "down": {"w": (4 * width, width), "b": (width,)},
    }
    return {
        f"{part}.{k}": s for part, leaves in parts.items() for k, s in leaves.items()
    }


def stacked(layers: int, width: int) -> Shapes:
    """Blocks of GPT-2 stacked leaf by leaf, for a scan over the layers."""
    return {name: (layers, *shape) for name, shape in block(width).items()}


def gpt2(divisor: int = 1) -> Shapes:
    """GPT-2 small, 148 leaves; widths, tokens and positions divided by a number."""
    width = 768 // divisor
    blocks = {
        f"block_{i:02}.{name}": shape
        for i in range(12)
        for name, shape in block(width).items()
    }
    return {
        "tokens": (50257 // divisor, width),
        "positions": (1024 // divisor, width),
        **blocks,
        "norm.scale": (width,),
        "norm.bias": (width,),
    }


TREES = {
    "100": small(100),
    "400": small(400),
    "2000": small(2000),
    "tiny": tiny(200),
    "mlp6": dense(784, 256, 128, 10),
    "scan12": stacked(12, 256),
    "gpt2_small": gpt2(4),
    "gpt2": gpt2(),
    "4x1M": square(4, 1024),
    "4x16M": square(4, 4096),
}
FULL = ("400", "2000", "tiny", "mlp6", "scan12", "gpt2_small", "4x16M")
QUICK = ("100", "4x1M")


def count(shapes: Shapes) -> int:
    """How many numbers the parameters are."""
    return sum(map(math.prod, shapes.values()))


def random(shapes: Shapes, seed: int) -> dict[str, jax.Array]:
    """Normal numbers the size of weights, the same for the same seed."""
    generator = np.random.default_rng(seed)
    return {
        name: jnp.asarray(0.02 * generator.standard_normal(shape, np.float32))
        for name, shape in shapes.items()
    }
