"""What optax makes of each row, stored: it is computed op by op, and slowly.

`python -m tests.stored` computes all anew; `pytest -m peers` asks whether the stored
results are still optax's.
"""

import functools
import hashlib
import inspect
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from tests.catalogue import ROWS, Row
from tests.runs import SHAPES, optax_rules, params_and_grads, steps_of

FILE = pathlib.Path(__file__).parent / "data" / "optax.npz"
KEPT = (0, 1, 6, 11)  # the steps whose updates are kept; the parameters have all

COMPARED = [row for row in ROWS if row.optax is not None]


class Result(NamedTuple):
    """A row's parameters after all steps, and the updates of some."""

    params: dict[str, np.ndarray]  # in float64
    updates: dict[str, np.ndarray]  # in float64, [kept, ...]
    params32: dict[str, np.ndarray]  # the parameters of a run in float32


def digest_of(row: Row) -> str:
    """It changes with whatever the results depend on, but for optax itself."""
    given = [row.name, row.optax, row.settings, row.optax_settings or {}, row.extra]
    return hashlib.sha256(_spelled(given).encode() + _inputs()).hexdigest()[:16]


@functools.cache
def _inputs() -> bytes:
    return b"".join(
        np.asarray(x).tobytes() for x in jax.tree.leaves(params_and_grads())
    )


def _spelled(x: Any) -> str:
    """What it says: of a function its source; of another's transformation nothing."""
    if isinstance(x, dict):
        return "{" + ", ".join(f"{k}: {_spelled(v)}" for k, v in x.items()) + "}"
    if isinstance(x, optax.GradientTransformation) and "jopt" not in type(x).__module__:
        return "a transformation"  # jopt's of the same settings is spelled
    if isinstance(x, list):
        return "[" + ", ".join(map(_spelled, x)) + "]"
    return inspect.getsource(x) if inspect.isfunction(x) else repr(x)


@functools.cache
def _stored() -> dict[str, np.ndarray]:
    return dict(np.load(FILE))


def version() -> str:
    """The version of optax that the results are of."""
    return str(_stored()["version"])


def digests() -> list[str]:
    """Of the rows that are stored."""
    return _stored()["digests"].tolist()


def result_of(row: Row) -> Result:
    """What is stored."""
    known = digests()
    assert digest_of(row) in known, "not stored: run `python -m tests.stored`"
    i = known.index(digest_of(row))
    return Result(*(_unflat(_stored()[name][i]) for name in Result._fields))


def computed(row: Row) -> Result:
    """What optax makes of it."""
    params, updates = _run(row, np.float64)
    single, _ = _run(row, np.float32)
    return Result(params, {k: u[list(KEPT)] for k, u in updates.items()}, single)


def _run(row: Row, dtype: Any) -> Any:
    # Operation by operation: these are compiled once for all rows.
    with jax.enable_x64(dtype == np.float64), optax_rules(), jax.disable_jit():
        params, _, updates = steps_of(
            row.make_optax(), *params_and_grads(dtype), row.extra
        )
        return jax.tree.map(np.asarray, (params, updates))


def _flat(tree: dict[str, np.ndarray]) -> np.ndarray:
    """Steps, if there are some, by numbers."""
    lead = tree["s"].shape
    return np.concatenate([tree[k].reshape(*lead, -1) for k in SHAPES], axis=-1)


def _unflat(flat: np.ndarray) -> dict[str, np.ndarray]:
    ends = np.cumsum([int(np.prod(s)) for s in SHAPES.values()])
    parts = np.split(flat, ends[:-1], axis=-1)
    return {
        k: x.reshape((*flat.shape[:-1], *s)) for (k, s), x in zip(SHAPES.items(), parts)
    }


def main() -> None:
    results = [computed(row) for row in COMPARED]
    arrays = {
        name: np.stack([_flat(getattr(r, name)) for r in results])
        for name in Result._fields
    }
    digests = np.array([digest_of(row) for row in COMPARED])
    np.savez_compressed(FILE, version=optax.__version__, digests=digests, **arrays)


if __name__ == "__main__":
    main()
