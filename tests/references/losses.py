"""Losses of `optax.losses`, by their definitions, one example or element at a time."""

import itertools

import numpy as np


def xlogy(x, y):
    return 0.0 if x == 0 else x * np.log(y)


def softmax(x):
    e = np.exp(x - np.max(x))
    return e / e.sum()


# ---------------------------------------------------------------- of single numbers


def squared_error(e):
    return e**2


def l2_loss(e):
    return e**2 / 2


def huber_loss(e, delta=1.0):  # Huber 1964
    return e**2 / 2 if abs(e) <= delta else delta * (abs(e) - delta / 2)


def log_cosh(e):
    return np.log1p(2 * np.sinh(e / 2) ** 2)


def sigmoid_binary_cross_entropy(x, y):
    p = 1 / (1 + np.exp(-x))
    return -xlogy(y, p) - xlogy(1 - y, 1 / (1 + np.exp(x)))


def sigmoid_focal_loss(x, y, alpha=None, gamma=2.0):  # Lin et al. 2017, eq. 5
    p = 1 / (1 + np.exp(-x))
    p_t = y * p + (1 - y) * (1 - p)
    alpha_t = 1 if alpha is None else y * alpha + (1 - y) * (1 - alpha)
    return alpha_t * (1 - p_t) ** gamma * sigmoid_binary_cross_entropy(x, y)


def hinge_loss(x, y):
    return max(0.0, 1 - y * x)


def perceptron_loss(x, y):
    return max(0.0, -y * x)


def sparsemax_loss(x, y):  # Blondel et al. 2020, section 4.4
    x = -x if y else x
    return 0.0 if x <= -1 else x if x >= 1 else (x + 1) ** 2 / 4


# ---------------------------------------------------- of single vectors `x` and `y`


def cosine_similarity(x, y, epsilon=0.0):
    return x @ y / np.sqrt(max(x @ x, epsilon) * max(y @ y, epsilon))


def cosine_distance(x, y, epsilon=0.0):
    return 1 - cosine_similarity(x, y, epsilon)


def softmax_cross_entropy(x, y):
    return -sum(xlogy(t, p) for t, p in zip(y, softmax(x)))


safe_softmax_cross_entropy = softmax_cross_entropy


def softmax_cross_entropy_with_integer_labels(x, label):
    return -np.log(softmax(x)[label])


def ranking_softmax_loss(x, y, reduce_fn=None):  # Cao et al. 2007, of one list
    assert reduce_fn is None
    return softmax_cross_entropy(x, y)


def poly_loss_cross_entropy(x, y, epsilon=2.0):  # Leng et al. 2022, eq. 5
    return softmax_cross_entropy(x, y) + epsilon * (y @ (1 - softmax(x)))


def kl_divergence(log_p, t):
    return sum(xlogy(b, b) - (b * a if b else 0.0) for a, b in zip(log_p, t))


def kl_divergence_with_log_targets(log_p, log_t):
    return kl_divergence(log_p, np.exp(log_t))


def generalized_kl_divergence(log_p, t):  # Boyd & Vandenberghe, page 90
    return kl_divergence(log_p, t) - t.sum() + np.exp(log_p).sum()


convex_kl_divergence = generalized_kl_divergence


def multiclass_hinge_loss(x, label):
    return max(s + (k != label) for k, s in enumerate(x)) - x[label]


def multiclass_perceptron_loss(x, label):
    return max(x) - x[label]


def sparsemax(x, scale=1.0):
    """By bisection of the threshold, the definition's only unknown."""
    low, high = x.min() - scale, x.max()
    for _ in range(200):
        tau = (low + high) / 2
        low, high = (tau, high) if np.maximum(x - tau, 0).sum() > scale else (low, tau)
    return np.maximum(x - tau, 0)


def multiclass_sparsemax_loss(x, label):  # Martins & Astudillo 2016, eq. 17
    p = sparsemax(x)
    tau = x[p > 0][0] - p[p > 0][0]
    return -x[label] + ((x**2 - tau**2)[p > 0]).sum() / 2 + 0.5


# ------------------------------------------------------------------------ of batches


def ntxent(x, labels, temperature=0.07):  # Chen et al. 2020, eq. 1, any number of pairs
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    s = np.exp(x @ x.T / temperature)
    pairs = [
        -np.log(s[i, j] / (s[i, j] + s[i][labels != labels[i]].sum()))
        for i, j in itertools.permutations(range(len(x)), 2)
        if labels[i] == labels[j]
    ]
    return np.mean(pairs) if pairs else 0.0


def triplet_margin_loss(a, p, n, norm_degree=2, margin=1.0, eps=1e-6):
    def distance(d):
        return (np.sum(abs(d) ** norm_degree, -1) + eps) ** (1 / norm_degree)

    return np.maximum(distance(a - p) - distance(a - n) + margin, 0)


def tversky(p, t, smooth=1.0, alpha=0.5, beta=0.5):  # Salehi et al. 2017, one class
    both, p_only, t_only = (p * t).sum(), (p * (1 - t)).sum(), ((1 - p) * t).sum()
    return 1 - (both + smooth) / (both + alpha * p_only + beta * t_only + smooth)


def ctc_probability(p, labels, blank=0):  # Graves et al. 2006, eq. 3: all paths
    total = 0.0
    for path in itertools.product(range(p.shape[1]), repeat=len(p)):
        merged = [c for c, _ in itertools.groupby(path)]
        if [c for c in merged if c != blank] == list(labels):
            total += np.prod([p[t, c] for t, c in enumerate(path)])
    return total


def ctc_loss_and_gradient(logits, labels, blank=0):
    """One sequence by forward and backward sums over the labels with blanks between.

    Graves et al. 2006, eqs. 6, 7, 10, 11 and 16, in logarithms.
    """
    shifted = logits - logits.max(-1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    states = np.full(2 * len(labels) + 1, blank)
    states[1::2] = labels
    skips = np.zeros(len(states), bool)
    skips[2:] = (states[2:] != blank) & (states[2:] != states[:-2])

    def forward(log_q, skips):
        alpha = np.full(log_q.shape, -np.inf)
        alpha[0, :2] = log_q[0, :2]
        for t in range(1, len(log_q)):
            before = np.full((3, len(skips)), -np.inf)
            before[0] = alpha[t - 1]
            before[1, 1:] = alpha[t - 1, :-1]
            before[2, 2:] = np.where(skips[2:], alpha[t - 1, :-2], -np.inf)
            alpha[t] = log_q[t] + np.logaddexp.reduce(before)
        return alpha

    log_q = log_p[:, states]
    alpha = forward(log_q, skips)
    back = np.zeros(len(states), bool)
    back[2:] = skips[2:][::-1]
    beta = forward(log_q[::-1, ::-1], back)[::-1, ::-1]
    loss = -np.logaddexp.reduce(alpha[-1, -2:])
    gamma = np.exp(alpha + beta - log_q + loss)  # the share of each state, eq. 14
    gradient = np.exp(log_p)
    for s, k in enumerate(states):
        gradient[:, k] -= gamma[:, s]
    return loss, gradient


def generalized_dice(p, t, smooth):
    """Sudre et al. 2017, the GDL of section 2.1, with weights of mean one."""
    sizes = [t[..., c].sum() for c in range(t.shape[-1])]
    rarest = min(n for n in sizes if n)
    weights = np.array([1 / (n or rarest) ** 2 for n in sizes])  # as NiftyNet has it
    weights = weights / weights.mean()
    above = below = 0.0
    for c, w in enumerate(weights):
        above += w * (p[..., c] * t[..., c]).sum()
        below += w * (p[..., c] + t[..., c]).sum()
    return 1 - (2 * above + 2 * smooth) / (below + 2 * smooth)
