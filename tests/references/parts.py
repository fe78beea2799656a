"""Parts of optimizers: each returns the list of its updates."""

import numpy as np

__all__ = [
    "adaptive_grad_clip",
    "add_decayed_weights",
    "apply_every",
    "centralize",
    "clip",
    "clip_by_block_rms",
    "clip_by_global_norm",
    "ema",
    "identity",
    "keep_params_nonnegative",
    "normalize",
    "normalize_by_update_norm",
    "scale",
    "scale_by_param_block_norm",
    "scale_by_param_block_rms",
    "scale_by_trust_ratio",
    "zero",
]


def rms(x):
    return np.sqrt(np.mean(x**2))


def global_norm(g):
    return np.sqrt(sum(np.sum(x**2) for x in g.values()))


def walk(p, gs, rule):
    """The updates of `rule(g, p)` along the path of the parameter that they make."""
    us = []
    for g in gs:
        us.append(rule(g, p))
        p = p + us[-1]
    return us


def identity(p, gs):
    return gs


def zero(p, gs):
    return [0 * g for g in gs]


def scale(p, gs, *, step_size):
    return [step_size * g for g in gs]


def clip(p, gs, *, max_delta):
    return [np.minimum(np.maximum(g, -max_delta), max_delta) for g in gs]


def clip_by_global_norm(p, gs, *, max_norm):  # Pascanu et al. 2013, algorithm 1
    out = []
    for g in gs:
        norm = global_norm(g)
        out.append({k: x * min(1, max_norm / norm) for k, x in g.items()})
    return out


def clip_by_block_rms(p, gs, *, threshold):  # Shazeer & Stern 2018, section 6
    return [g / max(1, rms(g) / threshold) for g in gs]


def adaptive_grad_clip(p, gs, *, clipping, eps=1e-3):  # Brock et al. 2021, section 4.1
    def unit_norm(x):  # by output: the last axis of a kernel [.., in, out]
        axis = {0: None, 1: None, 2: 0, 3: 0}[x.ndim]
        return np.sqrt(np.sum(x**2, axis=axis, keepdims=True))

    def rule(g, p):
        most = clipping * np.maximum(unit_norm(p), eps)
        return np.where(unit_norm(g) > most, most * g / unit_norm(g), g)

    return walk(p, gs, rule)


def centralize(p, gs):  # Yong et al. 2020, equation 1
    return [
        g - g.mean(axis=tuple(range(1, g.ndim)), keepdims=True) if g.ndim > 1 else g
        for g in gs
    ]


def normalize(p, gs):
    return [{k: x / global_norm(g) for k, x in g.items()} for g in gs]


def normalize_by_update_norm(p, gs, *, scale_factor=1.0, eps=1e-6):
    return [
        {k: scale_factor * x / (global_norm(g) + eps) for k, x in g.items()} for g in gs
    ]


def scale_by_param_block_norm(p, gs, *, min_scale=1e-3):
    return walk(p, gs, lambda g, p: g * max(np.sqrt(np.sum(p**2)), min_scale))


def scale_by_param_block_rms(p, gs, *, min_scale=1e-3):
    return walk(p, gs, lambda g, p: g * max(rms(p), min_scale))


def scale_by_trust_ratio(
    p, gs, *, min_norm=0.0, trust_coefficient=1.0, eps=0.0
):  # You et al. 2017, equation 6 without decay
    def rule(g, p):
        p_norm = max(np.sqrt(np.sum(p**2)), min_norm)
        g_norm = max(np.sqrt(np.sum(g**2)), min_norm)
        return g * trust_coefficient * p_norm / (g_norm + eps)

    return walk(p, gs, rule)


def add_decayed_weights(p, gs, *, weight_decay):
    return walk(p, gs, lambda g, p: g + weight_decay * p)


def keep_params_nonnegative(p, gs):
    return walk(p, gs, lambda g, p: np.maximum(g, -p))


def apply_every(p, gs, *, k):
    return [
        sum(gs[t - k : t]) if t % k == 0 else 0 * g for t, g in enumerate(gs, start=1)
    ]


def ema(p, gs, *, decay, debias=True):  # Kingma & Ba 2015, section 3
    us, mean = [], 0.0
    for t, g in enumerate(gs, start=1):
        mean = decay * mean + (1 - decay) * g
        us.append(mean / (1 - decay**t) if debias else mean)
    return us
