"""References of optimistic, averaged, sharpness-aware and projected methods."""

import numpy as np

from .adam import adam

__all__ = [
    "acprop",
    "galore",
    "lookahead_sgd",
    "madgrad",
    "optimistic_adam",
    "optimistic_gradient",
    "optimistic_gradient_descent",
    "params_ema",
    "reduce_on_plateau",
    "sam_sgd",
    "schedule_free_adamw",
    "schedule_free_sgd",
]


def at(setting, count):
    """A number or a schedule, of the steps taken so far."""
    return float(setting(count)) if callable(setting) else setting


def optimistic_gradient(p, gs, *, alpha=1.0, beta=1.0):
    """Mokhtari et al. 2020, eq. 26: (alpha + beta) g - beta g_before, g_0 = g_1."""
    before = [gs[0], *gs[:-1]]
    return [(alpha + beta) * g - beta * h for g, h in zip(gs, before)]


def optimistic_gradient_descent(p, gs, *, learning_rate, **settings):
    for count, u in enumerate(optimistic_gradient(p, gs, **settings)):
        p = p - at(learning_rate, count) * u
    return p


def optimistic_adam(
    p, gs, *, learning_rate, alpha=1.0, beta=1.0, nesterov=True, **settings
):
    """Daskalakis et al. 2018, algorithm 1 with the weights of the above."""
    settings = dict(settings, nesterov=nesterov, learning_rate=-1.0)
    path = [np.zeros_like(p)]  # of Adam alone, at a rate of 1, uphill
    path += [adam(path[0], gs[: t + 1], **settings) for t in range(len(gs))]
    directions = list(np.diff(path, axis=0))
    return optimistic_gradient_descent(
        p, directions, learning_rate=learning_rate, alpha=alpha, beta=beta
    )


def madgrad(p, gs, *, learning_rate, momentum=0.9, weight_decay=0.0, eps=1e-6):
    """Defazio & Jelassi 2021, algorithm 1, c = 1 - momentum; their code adds eps to
    the rate."""
    x0, s, v = p, np.zeros_like(p), np.zeros_like(p)
    for k, g in enumerate(gs):
        g = g + weight_decay * p
        weight = (at(learning_rate, k) + eps) * np.sqrt(k + 1)
        s = s + weight * g
        v = v + weight * g * g
        z = x0 - s / (np.cbrt(v) + eps)
        p = momentum * p + (1 - momentum) * z
    return p


def acprop(
    p,
    gs,
    *,
    learning_rate,
    b1=0.9,
    b2=0.999,
    eps=1e-16,
    eps_root=1e-16,
    weight_decay=0.0,
):
    """Zhuang et al. 2021, algorithm 2, with the mean before the step in its residual.

    The first step, for which the paper has no variance, divides by one.
    """
    m, s, s_hat = np.zeros_like(p), np.zeros_like(p), np.ones_like(p)
    for t, g in enumerate(gs, start=1):
        p = p - learning_rate * (g / (np.sqrt(s_hat) + eps) + weight_decay * p)
        s = b2 * s + (1 - b2) * (g - m) ** 2 + eps_root
        m = b1 * m + (1 - b1) * g
        s_hat = s / (1 - b2**t)
    return p


def _schedule_free(y, z_step, n, rate, b1, power):
    """Defazio et al. 2024, eqs. 3 to 5, with the weights of its algorithm 1.

    `z_step(t, y)` is the step of z, t from 0. What has no rate yet has no weight.
    """
    x, z, largest, total = y, y, 0.0, 0.0
    for t in range(n):
        z = z + z_step(t, y)
        largest = max(largest, at(rate, t))
        total += largest**power
        c = largest**power / total if total else 0.0
        x = (1 - c) * x + c * z
        y = (1 - b1) * z + b1 * x
    return y


def _warm(learning_rate, steps, from_zero):
    if steps is None:
        return learning_rate
    return lambda count: learning_rate * min((count + 1 - from_zero) / steps, 1.0)


def schedule_free_sgd(
    p,
    gs,
    *,
    learning_rate=1.0,
    warmup_steps=None,
    b1=0.9,
    weight_decay=0.0,
    weight_lr_power=2.0,
    warmup_from_zero=True,
):
    rate = _warm(learning_rate, warmup_steps, warmup_from_zero)

    def step(t, y):
        return -at(rate, t) * (gs[t] + weight_decay * y)

    return _schedule_free(p, step, len(gs), rate, b1, weight_lr_power)


def schedule_free_adamw(
    p,
    gs,
    *,
    learning_rate=0.0025,
    warmup_steps=None,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    weight_decay=0.0,
    weight_lr_power=2.0,
    warmup_from_zero=True,
):
    rate = _warm(learning_rate, warmup_steps, warmup_from_zero)
    squares = [np.zeros_like(p)]
    for g in gs:
        squares.append(b2 * squares[-1] + (1 - b2) * g**2)

    def step(t, y):
        root = np.sqrt(squares[t + 1] / (1 - b2 ** (t + 1)))
        return -at(rate, t) * (gs[t] / (root + eps) + weight_decay * y)

    return _schedule_free(p, step, len(gs), rate, b1, weight_lr_power)


def sam_sgd(params, grads, *, learning_rate, rho, sync_period=2):
    """Foret et al. 2021, algorithm 1; the last of each group of gradients descends."""
    p, q = params, params
    for t, g in enumerate(grads, start=1):
        if t % sync_period:
            size = np.sqrt(sum(np.sum(x**2) for x in g.values()))
            q = {k: q[k] + rho * g[k] / size for k in q}
        else:
            p = q = {k: p[k] - learning_rate * g[k] for k in p}
    return q


def reduce_on_plateau(
    params,
    grads,
    *,
    loss,
    factor=0.1,
    patience=10,
    rtol=1e-4,
    atol=0.0,
    cooldown=0,
    accumulation_size=1,
    min_scale=0.0,
    mode="min",
):
    """The scaled gradients; the metric is `loss` of where these lead."""
    sign = {"min": 1, "max": -1}[mode]
    scale, best, bad, rest, seen, out = 1.0, None, 0, 0, [], []
    for g in grads:
        seen.append(sign * loss(params))
        if len(seen) == accumulation_size:
            value, seen = np.mean(seen), []
            better = best is None or value < best - rtol * abs(best) - atol
            best = value if better else best
            bad = 0 if better else bad + 1
            if rest > 0:
                rest, bad = rest - 1, 0
            elif bad >= patience:
                scale, rest, bad = max(scale * factor, min_scale), cooldown, 0
        out.append({k: scale * g[k] for k in g})
        params = {k: params[k] + out[-1][k] for k in params}
    return out


def galore(
    p,
    gs,
    *,
    learning_rate,
    rank,
    gap,
    matrices,
    scale=1.0,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    weight_decay=0.0,
):
    """Zhao et al. 2024, algorithm 2, projecting the longer side.

    `matrices` tells the axes of rows and columns by the number of axes.
    """
    if p.ndim not in matrices:
        return adam(
            p,
            gs,
            learning_rate=learning_rate,
            b1=b1,
            b2=b2,
            eps=eps,
            weight_decay=weight_decay,
        )
    rows, columns = (np.atleast_1d(axes) for axes in matrices[p.ndim])
    order = np.concatenate([rows, columns])
    turned = [p.shape[i] for i in order]
    shape = (int(np.prod(turned[: len(rows)])), -1)
    m = v = 0.0
    for t, g in enumerate(gs):
        g = g.transpose(order).reshape(shape)
        left = g.shape[0] >= g.shape[1]
        if t % gap == 0:
            u, _, vh = np.linalg.svd(g, full_matrices=False)
            basis = u[:, :rank] if left else vh[:rank].T
        low = basis.T @ g if left else g @ basis
        m = b1 * m + (1 - b1) * low
        v = b2 * v + (1 - b2) * low**2
        low = m / (1 - b1 ** (t + 1)) / (np.sqrt(v / (1 - b2 ** (t + 1))) + eps)
        step = scale * (basis @ low if left else low @ basis.T)
        step = step.reshape(turned).transpose(np.argsort(order))
        p = p - learning_rate * (step + weight_decay * p)
    return p


def lookahead_sgd(p, gs, *, learning_rate, sync_period, slow_step_size):
    """Zhang et al. 2019, algorithm 1, with gradient descent inside."""
    slow, fast = p, p
    for t, g in enumerate(gs, 1):
        fast = fast - learning_rate * g
        if t % sync_period == 0:
            slow = slow + slow_step_size * (fast - slow)
            fast = slow
    return fast


def params_ema(ps, *, decay, debias=True):
    """The weighted mean of all parameters so far, after each step; ps[0] is the start.

    Every step weighs `decay` times less than the next one. Without `debias` the first
    parameters have the weight that is left.
    """
    means = []
    for t in range(1, len(ps)):
        weights = decay ** np.arange(t - 1.0, -1, -1)
        mean = np.tensordot(weights, ps[1 : t + 1], 1) / np.sum(weights)
        means.append(mean if debias else mean + decay**t * (ps[0] - mean))
    return means
