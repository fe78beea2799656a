"""Which row goes with which column at the least cost."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from .numerics import compute_dtype
from .settings import check_real

__all__ = ["base_hungarian_algorithm", "hungarian_algorithm"]


def hungarian_algorithm(cost_matrix: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Pairs rows and columns so that the costs of the pairs have the least sum.

        minimize sum_k cost_matrix[i_k, j_k]

    where no row and no column occurs twice and `min(n, m)` of them do. One row after
    another is added along the shortest augmenting path, O(n m min(n, m)) in all.

    The pairs are integers, so `cost_matrix[i, j].sum()` has the gradient of the least
    cost: one for each pair.

    Args:
        cost_matrix: the costs, real numbers `[n, m]`. `inf` and NaN forbid a pair; if
            no choice of pairs avoids them, some are chosen. Computed in float32, or
            float64 for costs of 64 bits.

    Returns:
        `(i, j)`, rows in increasing order and their columns, `i32[min(n, m)]`.

    Raises:
        ValueError: the costs are no matrix.
        TypeError: they are no real numbers.

    Example:
        >>> cost = jnp.array([[8, 4, 7], [5, 2, 3], [9, 6, 7], [9, 4, 8]])
        >>> i, j = jopt.assignment.hungarian_algorithm(cost)
        >>> i.tolist(), j.tolist(), int(cost[i, j].sum())
        ([0, 1, 3], [0, 2, 1], 15)

    Reference:
        Crouse, On implementing 2D rectangular assignment algorithms, IEEE Transactions
        on Aerospace and Electronic Systems, 2016, doi:10.1109/TAES.2016.140952.
    """
    if isinstance(cost_matrix, (list, tuple)):
        cost_matrix = np.asarray(cost_matrix)
    check_real("hungarian_algorithm", "cost_matrix", cost_matrix)
    cost = jnp.asarray(cost_matrix)
    if cost.ndim != 2:
        raise ValueError(
            "hungarian_algorithm: cost_matrix must be a matrix, got an array of shape "
            f"{cost.shape}; use jax.vmap for several"
        )
    if not jnp.issubdtype(cost.dtype, jnp.floating):
        cost = cost.astype(float)
    cost = jax.lax.stop_gradient(cost.astype(compute_dtype(cost.dtype)))
    if cost.shape[0] <= cost.shape[1]:
        columns = _columns_of_rows(cost)
        return jnp.arange(cost.shape[0], dtype=jnp.int32), columns
    rows = _columns_of_rows(cost.T)
    order = jnp.argsort(rows).astype(jnp.int32)
    return rows[order], order


base_hungarian_algorithm = hungarian_algorithm


@jax.jit
def _columns_of_rows(cost: jax.Array) -> jax.Array:
    """The column for each row, where there are at least as many columns as rows."""
    n, m = cost.shape
    if n == 0:
        return jnp.zeros(0, jnp.int32)

    def add_row(row, state):
        u, v, row_of, column_of = state
        last, distance, before, done = _shortest_path(cost, row, u, v, row_of)

        # the dual prices u and v stay such that no reduced cost is negative
        length = distance[last]
        gain = jnp.where(done, length - distance, 0)
        u = u + jnp.where(column_of >= 0, gain[column_of], 0)
        u, v = u.at[row].add(length), v - gain

        def shift(state):
            column, row_of, column_of = state
            r = before[column]
            return column_of[r], row_of.at[column].set(r), column_of.at[r].set(column)

        # backwards along the path each row leaves its column for the one after it
        _, row_of, column_of = jax.lax.while_loop(
            lambda state: state[0] >= 0, shift, (last, row_of, column_of)
        )
        return u, v, row_of, column_of

    free = jnp.int32(-1)
    state = (jnp.zeros(n, cost.dtype), jnp.zeros(m, cost.dtype))
    state = (*state, jnp.full(m, free), jnp.full(n, free))
    return jax.lax.fori_loop(0, n, add_row, state)[-1]


def _shortest_path(
    cost: jax.Array, row: jax.Array, u: jax.Array, v: jax.Array, row_of: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Dijkstra's search from a row to a free column, over the reduced costs.

    Returns that column, the distances of the columns, the row before each and which of
    them were visited.
    """
    m = v.size

    def visit(state):
        row, reached, distance, before, done, _ = state
        through = reached + cost[row] - u[row] - v
        nearer = ~done & (through < distance)
        distance = jnp.where(nearer, through, distance)
        before = jnp.where(nearer, row, before)
        # one not visited is always taken, however far, so that the search ends
        far = jnp.finfo(cost.dtype).max
        column = jnp.argmin(jnp.where(done, jnp.inf, jnp.minimum(distance, far)))
        column = column.astype(jnp.int32)
        done = done.at[column].set(True)
        return row_of[column], distance[column], distance, before, done, column

    row = jnp.asarray(row, jnp.int32)
    state = (
        row,
        jnp.zeros((), cost.dtype),
        jnp.full(m, jnp.inf, cost.dtype),
        jnp.full(m, row),
        jnp.zeros(m, bool),
        jnp.int32(0),
    )
    state = jax.lax.while_loop(lambda state: state[0] >= 0, visit, state)
    _, _, distance, before, done, column = state
    return column, distance, before, done
