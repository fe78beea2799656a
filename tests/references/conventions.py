"""Rules as their papers' authors or PyTorch write them, where optax has another form.

Of one array, in float64: `rule(p, gs, **settings)` is the parameter after all steps.
"""

import numpy as np

from .matrix import newton_schulz

__all__ = []


def prodigy(p, gs, *, d0=1e-6, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
    """Mishchenko & Defazio 2024, algorithm 4, which corrects no bias."""
    b1, b2 = betas
    b3 = b2**0.5
    x0, x, m, v, s, r, d = p, p, 0 * p, 0 * p, 0 * p, 0.0, d0
    for g in gs:
        m = b1 * m + (1 - b1) * d * g
        v = b2 * v + (1 - b2) * d**2 * g**2
        r = b3 * r + (1 - b3) * d**2 * np.sum(g * (x0 - x))
        s = b3 * s + (1 - b3) * d**2 * g
        new = max(d, r / np.abs(s).sum())
        x = x - d * (m / (np.sqrt(v) + new * eps) + weight_decay * x)
        d = new
    return x


def dadapt_adamw(p, gs, *, d0=1e-6, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
    """Defazio & Mishchenko 2023, algorithm 5, with the decay of AdamW."""
    b1, b2 = betas
    b3 = b2**0.5
    m, v, s, r, d = 0 * p, 0 * p, 0 * p, 0.0, d0
    for g in gs:
        r = b3 * r + (1 - b3) * d * np.sum(g * s / (np.sqrt(v) + eps))
        m = b1 * m + (1 - b1) * d * g
        v = b2 * v + (1 - b2) * g**2
        s = b3 * s + (1 - b3) * d * g
        p = p - d * weight_decay * p - m / (np.sqrt(v) + eps)
        d = max(d, r / ((1 - b3) * np.abs(s).sum()))
    return p


def adan(p, gs, *, lr, weight_decay, b1=0.98, b2=0.92, b3=0.99, eps=1e-8, eps_root=0.0):
    """Xie et al. 2024, algorithm 1, whose betas are one minus these."""
    m, v, n, last = 0 * p, 0 * p, 0 * p, gs[0]
    for t, g in enumerate(gs, start=1):
        change, last = g - last, g
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * change
        n = b3 * n + (1 - b3) * (g + b2 * change) ** 2
        root = np.sqrt(n / (1 - b3**t) + eps_root) + eps
        step = (m / (1 - b1**t) + b2 * v / (1 - b2**t)) / root
        p = (p - lr * step) / (1 + lr * weight_decay)
    return p


def lars(p, gs, *, lr, weight_decay, trust, momentum=0.9):
    """You, Gitman & Ginsburg 2017, algorithm 1."""
    v = 0 * p
    for g in gs:
        size, slope = np.linalg.norm(p), np.linalg.norm(g)
        local = trust * size / (slope + weight_decay * size)
        v = momentum * v + lr * local * (g + weight_decay * p)
        p = p - v
    return p


def radam(p, gs, *, lr, betas=(0.9, 0.999), eps=1e-8):
    """`torch.optim.RAdam`: eps beside the root that is not corrected."""
    b1, b2 = betas
    m, v, longest = 0 * p, 0 * p, 2 / (1 - b2) - 1
    for t, g in enumerate(gs, start=1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        length = longest - 2 * t * b2**t / (1 - b2**t)
        step = m / (1 - b1**t)
        if length > 5:
            rest = (longest - 4) * (longest - 2) * length
            step = step * np.sqrt((length - 4) * (length - 2) * longest / rest)
            step = step * np.sqrt(1 - b2**t) / (np.sqrt(v) + eps)
        p = p - lr * step
    return p


def nadam(p, gs, *, lr, psi, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
    """Dozat 2016, algorithm 2, with its schedule of the momentum; decay as AdamW's."""
    b1, b2 = betas
    m, v, product = 0 * p, 0 * p, 1.0
    for t, g in enumerate(gs, start=1):
        now, ahead = (b1 * (1 - 0.5 * 0.96 ** (i * psi)) for i in (t, t + 1))
        product = product * now
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        above = ahead * m / (1 - product * ahead) + (1 - now) * g / (1 - product)
        step = above / (np.sqrt(v / (1 - b2**t)) + eps)
        p = p - lr * (step + weight_decay * p)
    return p


def amsgrad(p, gs, *, lr, betas=(0.9, 0.999), eps=1e-8):
    """`torch.optim.Adam(amsgrad=True)`: the largest square, and then its correction."""
    b1, b2 = betas
    m, v, largest = 0 * p, 0 * p, 0 * p
    for t, g in enumerate(gs, start=1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        largest = np.maximum(largest, v)
        root = np.sqrt(largest) / np.sqrt(1 - b2**t) + eps
        p = p - lr * m / (1 - b1**t) / root
    return p


def adagrad(p, gs, *, lr, eps=1e-10, lr_decay=0.0):
    """`torch.optim.Adagrad`: eps outside of the root."""
    total = 0 * p
    for t, g in enumerate(gs):
        total = total + g**2
        p = p - lr / (1 + lr_decay * t) * g / (np.sqrt(total) + eps)
    return p


def muon(p, gs, *, lr, beta=0.95, nesterov=True):
    """Jordan et al. 2024, the authors' code, for a matrix `[in, out]`."""
    fan_in, fan_out = p.shape
    m = 0 * p
    for g in gs:
        m = beta * m + (1 - beta) * g
        u = (1 - beta) * g + beta * m if nesterov else m
        p = p - lr * np.sqrt(max(1, fan_out / fan_in)) * newton_schulz(u)
    return p


def galore(p, gs, *, lr, rank, gap, scale=0.25, betas=(0.9, 0.999), eps=1e-8):
    """Zhao et al. 2024, algorithm 2, and its mirror image for a tall matrix."""
    b1, b2 = betas
    tall = p.shape[0] > p.shape[1]
    p = p.T if tall else p
    m = v = np.zeros((rank, p.shape[1]))
    for t, g in enumerate(gs, start=1):
        if (t - 1) % gap == 0:  # of the whole, so that signs are those of one library
            left, _, right = np.linalg.svd(g, full_matrices=False)
            basis = right[:rank].T if tall else left[:, :rank]
        g = g.T if tall else g
        low = basis.T @ g
        m = b1 * m + (1 - b1) * low
        v = b2 * v + (1 - b2) * low**2
        step = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)
        p = p - lr * scale * basis @ step
    return p.T if tall else p
