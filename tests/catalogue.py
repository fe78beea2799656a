"""Every optimizer and part that the promises of `test_every_optimizer.py` hold for.

One row a transformation. A reference is a float64 NumPy function written from the
paper: `reference(p, gs, **settings) -> p` takes one parameter array and the list of its
gradients and returns the parameter after all steps (or, for a part, the list of its
updates); with `whole_tree` it takes a dict of arrays and a list of dicts.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jopt
from jopt.plan import Rule, node_of, stages
from tests import references
from tests.references import conventions


class Row(NamedTuple):
    """A transformation, how it is made, and what it must equal."""

    name: str  # its address below jopt
    settings: dict[str, Any] = {}
    reference: Callable | None = None  # of the parameters after the steps
    reference_settings: dict[str, Any] | None = None  # if they are not `settings`
    whole_tree: bool = False  # the reference takes trees
    optax: str | None = ""  # its address below optax if another; None if it has none
    optax_settings: dict[str, Any] | None = None  # if they are not `settings`
    differs: str = ""  # why it does not equal optax, if so
    descends: bool = True  # a whole optimizer, so that it lowers a loss
    extra: Callable | None = None  # (params) -> extra arguments of update
    rtol: float = 1e-6  # against optax in float32, after all steps
    rtol64: float = 1e-8  # and in float64
    paper_rtol: float = 1e-9  # against the reference, in float64
    f32_rtol: float = 2e-5  # float32 against float64

    @property
    def id(self) -> str:
        shown = (f"{k}={getattr(v, '__name__', v)}" for k, v in self.settings.items())
        return f"{self.name}({','.join(shown)})"

    def make(self):
        return _at(jopt, self.name)(**self.settings)

    def make_optax(self):
        settings = self.settings if self.optax_settings is None else self.optax_settings
        return _at(optax, self.optax or self.name)(**settings)


def _at(module: Any, address: str) -> Any:
    for name in address.split("."):
        module = getattr(module, name)
    return module


def _quartic(p):
    """A loss whose Hessian is diagonal, so that its estimate is exact."""
    return sum(jnp.sum(x**4) for x in jax.tree.leaves(p))


def part(name: str, settings: dict, reference: Callable, **kwargs: Any) -> Row:
    return Row(name, settings, reference, descends=False, **kwargs)


LR = dict(learning_rate=0.05)


def _halving(count):
    """A schedule, of numbers that every dtype holds."""
    return jnp.where(count < 10, 0.0625, 0.03125)


def _half(count):
    """A bound."""
    return 0.5


def _loss_value(params):
    """The extra argument of a step that is found from the loss."""
    losses = [jnp.sum((x - 0.3) ** 2) for x in jax.tree.leaves(params)]
    return dict(value=0.5 * sum(losses))


def _loss_of_arrays(params):
    """The same of NumPy arrays."""
    return 0.5 * sum(np.sum((x - 0.3) ** 2) for x in params.values())


def _uphill(library, rho):
    """The ascent of the sharpness-aware method."""
    return library.chain(library.contrib.normalize(), library.sgd(rho))


def _as_matrices(library):
    """Which axes of a leaf are its rows and its columns to the method."""
    one = library.GaLoreDimensionNumbers

    def numbers(params):
        return {"w": one(1, 0), "stack": one(1, (0, 2)), "b": None, "s": None}

    return numbers


def _search(params):
    """The extra arguments of a line search."""
    value, grad = jax.value_and_grad(_distance)(params)
    return dict(value=value, grad=grad, value_fn=_distance)


def _distance(params):
    """In float32 at least: the squares are too large for float16."""
    leaves = jax.tree.leaves(params)
    wide = [x if x.dtype == np.float64 else x.astype(np.float32) for x in leaves]
    return 0.5 * sum(jnp.sum((x - 0.3) ** 2) for x in wide)


def _distance_gradient(params):
    return {k: x - 0.3 for k, x in params.items()}


def _matrices(params):
    """A mask: the leaves of two axes and more."""
    return jax.tree.map(lambda x: np.ndim(x) > 1, params)


ROWS = [
    # ------------------------------------------------------------------ Adam
    Row("adam", LR, references.adam),
    Row("adam", dict(LR, nesterov=True), references.adam),
    Row("adam", dict(LR, b1=0.5, b2=0.9, eps=1e-3, eps_root=1e-4), references.adam),
    Row("adamw", dict(LR, weight_decay=0.1), references.adam),
    Row("nadam", LR, references.adam, dict(LR, nesterov=True)),
    Row(
        "nadam",
        dict(LR, momentum_decay=0.004),
        conventions.nadam,
        dict(lr=0.05, psi=0.004),
        optax=None,  # it has constant momentum alone
    ),
    Row(
        "nadamw",
        dict(LR, weight_decay=0.1),
        references.adam,
        dict(LR, weight_decay=0.1, nesterov=True),
    ),
    # ------------------------------------------------- moments (Adam's relatives)
    Row("adamax", LR, references.adamax),
    Row("adamaxw", dict(LR, weight_decay=0.1), references.adamax),
    Row("adamax", dict(LR, b1=0.5, b2=0.6, eps=0.1), references.adamax),
    Row("amsgrad", LR, references.amsgrad),
    Row("amsgrad", dict(LR, eps=0.1, eps_root=0.01), references.amsgrad),
    Row(
        "amsgrad",
        dict(LR, b2=0.9, bias_correction_mu=False, bias_correction_nu=False),
        references.amsgrad,
    ),
    Row("adabelief", LR, references.adabelief),
    Row("adabelief", dict(LR, nesterov=True), references.adabelief),
    Row("adabelief", dict(LR, eps=0.1, eps_root=1e-3), references.adabelief),
    Row(
        "adabelief",
        dict(LR, weight_decay=0.1),
        references.adabelief,
        optax=None,  # the installed one has no decay yet
    ),
    Row("yogi", LR, references.yogi),
    part(
        "scale_by_yogi",
        dict(b2=0.9, eps_root=0.1, initial_accumulator_value=0.3),
        references.scale_by_yogi,
    ),
    Row("radam", LR, references.radam),
    Row("radam", dict(LR, b2=0.99, eps=0.1, eps_root=0.01), references.radam),
    Row("radam", dict(LR, b2=0.9, threshold=4.5, nesterov=True), references.radam),
    Row("novograd", dict(LR, weight_decay=0.1), references.novograd),
    Row("novograd", dict(LR, b2=0.98, eps=0.1, eps_root=0.1), references.novograd),
    Row(
        "adan",
        dict(LR, weight_decay=0.1),
        references.adan,
        differs="it weights the change of the gradient in the square by 1 - b2",
    ),
    Row(
        "adan",
        dict(LR, eps_root=1e-4, weight_decay=0.1, proximal=True),
        conventions.adan,
        dict(lr=0.05, weight_decay=0.1, eps_root=1e-4),
        optax=None,
    ),
    Row("contrib.ademamix", dict(LR, weight_decay=0.1), references.ademamix),
    Row(
        "contrib.ademamix",
        dict(
            LR,
            alpha=jopt.linear_schedule(0.0, 5.0, 8),  # eighths: exact in float32
            b3=jopt.linear_schedule(0.5, 0.75, 16),
        ),
        references.ademamix,
    ),
    Row(
        "simplified_ademamix",
        dict(learning_rate=5e-3, b1=0.9, alpha=2.0, eps=0.1, weight_decay=0.1),
        references.simplified_ademamix,
        optax="contrib.simplified_ademamix",
    ),
    Row("contrib.adopt", LR, references.adopt),
    Row("contrib.adopt", dict(LR, nesterov=True), references.adopt),
    Row("contrib.adopt", dict(LR, use_clipping=False), references.adopt),
    Row("contrib.adopt", dict(LR, clip_value_fn=_half), references.adopt),
    Row("lamb", dict(LR, weight_decay=0.1), references.lamb),
    # ------------------------------------------------------ momentum, signs, scales
    Row("sgd", LR, references.sgd),
    Row("sgd", dict(learning_rate=_halving), references.sgd),
    Row("sgd", dict(LR, momentum=0.9), references.sgd),
    Row("sgd", dict(LR, momentum=0.9, nesterov=True), references.sgd),
    # So little noise that it is sgd: how much there is, test_gradient_scales.py says.
    Row("noisy_sgd", dict(LR, eta=1e-30, key=0), references.noisy_sgd),
    Row("sign_sgd", LR, references.sign_sgd),
    Row("signum", dict(LR, beta=0.8), references.signum),
    Row("lion", dict(LR, weight_decay=0.1), references.lion),
    Row(
        "scale_by_lion",
        dict(b1=0.5, mode="smooth", smooth_beta=3.0),
        references.scale_by_lion,
        descends=False,
    ),
    Row(
        "scale_by_lion",
        dict(b1=0.1, mode="refined"),
        references.scale_by_lion,
        descends=False,
    ),
    Row(
        "adadelta",
        dict(eps=1e-3, weight_decay=0.1),
        references.adadelta,
        differs="optax climbs: without a learning rate it has no sign",
    ),
    Row("adadelta", dict(learning_rate=3.0, rho=0.8, eps=1e-3), references.adadelta),
    Row("adagrad", LR, references.adagrad),
    Row(
        "adagrad",
        dict(LR, initial_accumulator_value=1.0, eps=1e-3),
        references.adagrad,
    ),
    Row("rmsprop", LR, references.rmsprop),
    Row(
        "rmsprop",
        dict(LR, momentum=0.5, nesterov=True, bias_correction=True),
        references.rmsprop,
    ),
    Row(
        "rmsprop",
        dict(LR, decay=0.8, eps=1e-3, initial_scale=0.3, eps_in_sqrt=False),
        references.rmsprop,
    ),
    Row("rmsprop", dict(LR, centered=True, momentum=0.5), references.rmsprop),
    Row(
        "rmsprop",
        dict(LR, eps=0.1, centered=True, bias_correction=True),
        references.rmsprop,
    ),
    Row(
        "rprop",
        dict(LR, max_step_size=0.1),
        references.rprop,
        differs="optax emits the update of the step before",
    ),
    # optax makes no state for scalars; the rest equals: test_gradient_scales.py
    Row("sm3", LR, references.sm3, optax=None),
    Row("fromage", LR, references.fromage),
    Row(
        "lars",
        dict(
            learning_rate=1.0,
            trust_coefficient=0.02,
            weight_decay=0.1,
            separate_norms=True,
        ),
        conventions.lars,
        dict(lr=1.0, trust=0.02, weight_decay=0.1),
        optax=None,
    ),
    Row(
        "lars",
        dict(learning_rate=1.0, trust_coefficient=0.02, weight_decay=0.1, eps=1e-3),
        references.lars,
    ),
    Row(
        "lars",
        dict(
            learning_rate=0.05,
            trust_coefficient=0.2,
            weight_decay=0.1,
            weight_decay_mask=_matrices,
            trust_ratio_mask=_matrices,
            momentum=0.5,
            nesterov=True,
        ),
        references.lars,
    ),
    # ------------------------------------------------- factored, matrix, second order
    Row("contrib.muon", LR, references.muon),
    Row(
        "contrib.muon",
        dict(LR, nesterov=False, weight_decay=0.1, consistent_rms=0.2),
        references.muon,
    ),
    Row("contrib.muon", dict(LR, adaptive=True), references.muon),
    Row(
        "contrib.sophia",
        dict(LR, gamma=0.5, update_interval=3),
        references.sophia,
        extra=lambda p: dict(obj_fn=_quartic),
    ),
    # optax has the decay in float32 whatever the parameters are
    Row("adafactor", LR, references.adafactor, rtol64=1e-7),
    Row(
        "adafactor",
        dict(LR, min_dim_size_to_factor=3),
        references.adafactor,
        rtol64=1e-7,
    ),
    Row(
        "adafactor",
        dict(
            LR,
            min_dim_size_to_factor=3,
            multiply_by_parameter_scale=False,
            clipping_threshold=None,
            momentum=0.9,
            weight_decay_rate=0.01,
        ),
        references.adafactor,
        rtol64=5e-7,
        paper_rtol=2e-8,  # its momentum is in float32
    ),
    # ---------------------------------------------------------------------- parts
    part("identity", {}, references.identity),
    part("set_to_zero", {}, references.zero),
    part("scale", dict(step_size=-0.5), references.scale),
    part("clip", dict(max_delta=0.5), references.clip),
    part(
        "clip_by_global_norm",
        dict(max_norm=2.0),
        references.clip_by_global_norm,
        whole_tree=True,
    ),
    part(
        "clip_by_global_norm",
        dict(max_norm=100.0),
        references.clip_by_global_norm,
        whole_tree=True,
    ),
    part("clip_by_block_rms", dict(threshold=0.9), references.clip_by_block_rms),
    part("adaptive_grad_clip", dict(clipping=0.3), references.adaptive_grad_clip),
    part("centralize", {}, references.centralize),
    part("contrib.normalize", {}, references.normalize, whole_tree=True),
    part(
        "normalize_by_update_norm",
        dict(scale_factor=-2.0, eps=0.5),
        references.normalize_by_update_norm,
        whole_tree=True,
    ),
    part("scale_by_param_block_norm", {}, references.scale_by_param_block_norm),
    part(
        "scale_by_param_block_rms",
        dict(min_scale=0.01),
        references.scale_by_param_block_rms,
    ),
    part(
        "scale_by_trust_ratio",
        dict(trust_coefficient=0.5),
        references.scale_by_trust_ratio,
    ),
    part(
        "scale_by_trust_ratio",
        dict(min_norm=0.5, trust_coefficient=0.1, eps=0.1),
        references.scale_by_trust_ratio,
    ),
    part("add_decayed_weights", dict(weight_decay=0.1), references.add_decayed_weights),
    part("keep_params_nonnegative", {}, references.keep_params_nonnegative),
    part("zero_nans", {}, references.identity),
    part("apply_every", dict(k=3), references.apply_every),
    part("apply_every", {}, references.identity),
    # So little noise that there is none: how much there is, test_parts.py says.
    part(
        "add_noise",
        dict(eta=1e-30, gamma=0.55, key=0),
        references.identity,
        reference_settings={},
    ),
    # ------------------------------------------ those that find their own step size
    Row("prodigy", {}, references.prodigy, whole_tree=True, optax="contrib.prodigy"),
    Row(
        "prodigy",
        dict(
            betas=(0.5, 0.9),
            beta3=0.8,
            eps=1e-2,
            estim_lr0=0.01,
            estim_lr_coef=2.0,
            weight_decay=0.1,
        ),
        references.prodigy,
        whole_tree=True,
        optax="contrib.prodigy",
    ),
    Row(
        "prodigy",
        dict(learning_rate=_halving, beta3=0.1, estim_lr0=0.1, safeguard_warmup=True),
        references.prodigy,
        whole_tree=True,
        optax="contrib.prodigy",
    ),
    Row(
        "prodigy",
        dict(estim_lr0=0.01, weight_decay=0.1, weight_decay_mask=_matrices),
        references.prodigy,
        whole_tree=True,
        optax=None,  # the installed one has no mask yet
    ),
    Row(
        "dadapt_adamw",
        {},
        references.dadapt_adamw,
        whole_tree=True,
        optax="contrib.dadapt_adamw",
    ),
    Row(
        "dadapt_adamw",
        dict(betas=(0.5, 0.9), eps=1e-2, estim_lr0=0.01, weight_decay=0.1),
        references.dadapt_adamw,
        whole_tree=True,
        optax="contrib.dadapt_adamw",
    ),
    Row(
        "dadapt_adamw",
        dict(learning_rate=_halving, estim_lr0=0.1),
        references.dadapt_adamw,
        whole_tree=True,
        optax="contrib.dadapt_adamw",
    ),
    Row("dog", {}, references.dog, whole_tree=True, optax="contrib.dog"),
    Row(
        "dog",
        dict(
            learning_rate=jopt.linear_schedule(1.0, 0.5, 16),
            init_step=("distance", 0.1),
            eps=0.1,
            weight_decay=0.1,
        ),
        references.dog,
        whole_tree=True,
        optax="contrib.dog",
    ),
    Row(
        "dog",
        dict(init_step=("learning_rate", 0.01)),
        references.dog,
        whole_tree=True,
        optax="contrib.dog",
    ),
    Row("dowg", {}, references.dowg, whole_tree=True, optax="contrib.dowg"),
    Row(
        "dowg",
        dict(learning_rate=_halving, init_estim_sq_dist=0.5, eps=0.1, weight_decay=0.1),
        references.dowg,
        whole_tree=True,
        optax="contrib.dowg",
    ),
    part(
        "scale_by_distance_over_gradients",
        dict(reps_rel=1e-2, eps=0.1, global_scale=-0.5),
        references.distance_over_gradients,
        optax=None,  # its state changes its shape; test_step_free.py compares steps
    ),
    Row("cocob", {}, references.cocob, optax="contrib.cocob"),
    Row(
        "cocob",
        dict(learning_rate=0.5, alpha=10.0, eps=1.0, weight_decay=0.1),
        references.cocob,
        optax="contrib.cocob",
    ),
    part(
        "scale_by_cocob",
        dict(alpha=3.0),
        references.scale_by_cocob,
        optax="contrib.scale_by_cocob",
    ),
    Row(
        "mechanize",
        # not of six scales, which would have the shape of a parameter
        dict(base_optimizer=jopt.sgd(1.0), eps=1e-2, s_init=0.1, num_betas=5),
        references.mechanize_sgd,
        dict(eps=1e-2, s_init=0.1, num_betas=5),
        whole_tree=True,
        optax_settings=dict(
            base_optimizer=optax.sgd(1.0), eps=1e-2, s_init=0.1, num_betas=5
        ),
        optax="contrib.mechanize",
    ),
    Row(
        "mechanize",
        dict(base_optimizer=jopt.sgd(1.0), weight_decay=0.5, s_init=0.01, num_betas=2),
        references.mechanize_sgd,
        dict(weight_decay=0.5, s_init=0.01, num_betas=2),
        whole_tree=True,
        optax_settings=dict(
            base_optimizer=optax.sgd(1.0), weight_decay=0.5, s_init=0.01, num_betas=2
        ),
        optax="contrib.mechanize",
    ),
    Row(
        "momo",
        dict(learning_rate=0.1),
        references.momo,
        whole_tree=True,
        extra=_loss_value,
        optax="contrib.momo",
    ),
    Row(
        "momo",
        dict(learning_rate=0.5, beta=0.5, lower_bound=-1.0, adapt_lower_bound=True),
        references.momo,
        whole_tree=True,
        extra=_loss_value,
        optax="contrib.momo",
    ),
    Row(
        "momo",
        dict(learning_rate=_halving, weight_decay=0.5, adapt_lower_bound=True),
        references.momo,
        whole_tree=True,
        extra=_loss_value,
        differs="it does not divide the step by 1 + learning_rate weight_decay",
        optax="contrib.momo",
    ),
    Row(
        "momo_adam",
        {},
        references.momo_adam,
        whole_tree=True,
        optax="contrib.momo_adam",
        extra=_loss_value,
    ),
    Row(
        "momo_adam",
        dict(learning_rate=0.5, b1=0.5, b2=0.9, eps=0.1, adapt_lower_bound=True),
        references.momo_adam,
        whole_tree=True,
        extra=_loss_value,
        optax="contrib.momo_adam",
        rtol=4e-6,  # its step is a difference of sums
    ),
    Row(
        "momo_adam",
        dict(learning_rate=_halving, lower_bound=5.0, weight_decay=0.5),
        references.momo_adam,
        whole_tree=True,
        extra=_loss_value,
        differs="it does not divide the step by 1 + learning_rate weight_decay",
        optax="contrib.momo_adam",
    ),
    Row(
        "polyak_sgd",
        dict(max_learning_rate=0.2, eps=0.5),
        references.polyak_sgd,
        whole_tree=True,
        extra=_loss_value,
    ),
    Row(
        "polyak_sgd",
        dict(scaling=_halving, f_min=0.1),
        references.polyak_sgd,
        whole_tree=True,
        extra=_loss_value,
        differs="it takes the norm of the gradient after it is scaled",
    ),
    part(
        "scale_by_polyak",
        dict(f_min=9.0, max_learning_rate=0.1, variant="sps+"),
        references.scale_by_polyak,
        whole_tree=True,
        extra=_loss_value,
    ),
    part(
        "scale_by_polyak",
        dict(f_min=9.0),
        references.scale_by_polyak,
        whole_tree=True,
        extra=_loss_value,
    ),
    # ------------------- optimistic, averaged, sharpness-aware, projected, private
    Row("optimistic_gradient_descent", LR, references.optimistic_gradient_descent),
    Row(
        "optimistic_gradient_descent",
        dict(learning_rate=_halving, alpha=0.5, beta=2.0),
        references.optimistic_gradient_descent,
    ),
    part(
        "scale_by_optimistic_gradient",
        dict(alpha=0.5, beta=2.0),
        references.optimistic_gradient,
    ),
    Row("optimistic_adam_v2", LR, references.optimistic_adam),
    Row(
        "optimistic_adam_v2",
        dict(LR, alpha=0.5, beta=2.0, b1=0.5, b2=0.9, eps=1e-3, nesterov=False),
        references.optimistic_adam,
    ),
    # optax has the root of the step number in float32 whatever the parameters are
    Row("madgrad", LR, references.madgrad, optax="contrib.madgrad", rtol64=1e-7),
    Row(
        "madgrad",
        dict(learning_rate=_halving, momentum=0.5, weight_decay=0.1, eps=0.1),
        references.madgrad,
        optax="contrib.madgrad",
        rtol64=1e-7,
    ),
    Row("acprop", LR, references.acprop, optax="contrib.acprop"),
    Row(
        "acprop",
        dict(LR, b1=0.5, b2=0.9, eps=0.1, eps_root=0.01, weight_decay=0.1),
        references.acprop,
        optax="contrib.acprop",
    ),
    Row(
        "schedule_free_sgd",
        LR,
        references.schedule_free_sgd,
        optax="contrib.schedule_free_sgd",
    ),
    Row(
        "schedule_free_sgd",
        dict(  # sixteenths over eight: optax warms up in float32
            learning_rate=0.0625,
            warmup_steps=8,
            b1=0.5,
            weight_decay=0.1,
            weight_lr_power=1.0,
        ),
        references.schedule_free_sgd,
        optax="contrib.schedule_free_sgd",
        differs="optax weighs a step by the rate of the next",
    ),
    Row(
        "schedule_free_adamw",
        LR,
        references.schedule_free_adamw,
        optax="contrib.schedule_free_adamw",
    ),
    Row(
        "schedule_free_adamw",
        dict(
            learning_rate=0.0625,
            warmup_steps=8,
            b1=0.5,
            b2=0.9,
            eps=0.1,
            weight_decay=0.1,
        ),
        references.schedule_free_adamw,
        optax="contrib.schedule_free_adamw",
        differs="optax weighs a step by the rate of the next",
    ),
    *(
        Row(
            name,
            dict(LR, warmup_steps=8, warmup_from_zero=False),
            getattr(references, name),
            optax=None,
        )
        for name in ("schedule_free_sgd", "schedule_free_adamw")
    ),
    Row(
        "schedule_free",
        dict(base_optimizer=jopt.sgd(_halving), learning_rate=_halving),
        references.schedule_free_sgd,
        dict(learning_rate=_halving),
        optax_settings=dict(base_optimizer=optax.sgd(_halving), learning_rate=_halving),
        optax="contrib.schedule_free",
    ),
    Row(
        "split_real_and_imaginary",
        dict(inner=jopt.adam(0.05)),
        references.adam,
        LR,
        optax_settings=dict(inner=optax.adam(0.05)),
        optax="contrib.split_real_and_imaginary",
    ),
    part(
        "with_metrics",
        dict(inner=jopt.clip_by_global_norm(2.0)),
        references.clip_by_global_norm,
        reference_settings=dict(max_norm=2.0),
        whole_tree=True,
        optax=None,
    ),
    Row(
        "sam",
        dict(optimizer=jopt.sgd(0.1), adv_optimizer=_uphill(jopt, 0.05)),
        references.sam_sgd,
        dict(learning_rate=0.1, rho=0.05),
        whole_tree=True,
        optax_settings=dict(
            optimizer=optax.sgd(0.1), adv_optimizer=_uphill(optax, 0.05)
        ),
        optax="contrib.sam",
    ),
    Row(
        "sam",
        dict(
            optimizer=jopt.sgd(0.1),
            adv_optimizer=_uphill(jopt, 0.05),
            sync_period=3,
            reset_state=False,
        ),
        references.sam_sgd,
        dict(learning_rate=0.1, rho=0.05, sync_period=3),
        whole_tree=True,
        optax_settings=dict(
            optimizer=optax.sgd(0.1),
            adv_optimizer=_uphill(optax, 0.05),
            sync_period=3,
            reset_state=False,
        ),
        optax="contrib.sam",
    ),
    part(
        "reduce_on_plateau",
        dict(factor=0.5, patience=2, rtol=0.01, cooldown=1, min_scale=0.1),
        references.reduce_on_plateau,
        reference_settings=dict(
            loss=_loss_of_arrays,
            factor=0.5,
            patience=2,
            rtol=0.01,
            cooldown=1,
            min_scale=0.1,
        ),
        whole_tree=True,
        extra=_loss_value,
        optax="contrib.reduce_on_plateau",
    ),
    part(
        "reduce_on_plateau",
        dict(factor=0.5, patience=3, atol=0.5, mode="max"),
        references.reduce_on_plateau,
        reference_settings=dict(
            loss=_loss_of_arrays,
            factor=0.5,
            patience=3,
            atol=0.5,
            mode="max",
        ),
        whole_tree=True,
        extra=_loss_value,
        optax=None,  # it has no modes
    ),
    Row(
        "galore",
        dict(LR, rank=2, update_proj_gap=5),
        references.galore,
        dict(LR, rank=2, gap=5, matrices={2: (0, 1)}),
        optax="contrib.galore",
        rtol64=1e-6,  # it decomposes in float32 whatever the parameters are
    ),
    Row(
        "galore",
        dict(
            LR,
            rank=1,
            update_proj_gap=7,
            scale=0.25,
            base_optimizer=jopt.scale_by_adam(b1=0.5),
            weight_decay=0.1,
            weight_dimension_numbers=_as_matrices(jopt),
        ),
        references.galore,
        dict(
            LR,
            rank=1,
            gap=7,
            scale=0.25,
            b1=0.5,
            weight_decay=0.1,
            matrices={2: (1, 0), 3: (1, (0, 2))},
        ),
        optax_settings=dict(
            LR,
            rank=1,
            update_proj_gap=7,
            scale=0.25,
            base_optimizer=optax.scale_by_adam(b1=0.5),
            weight_decay=0.1,
            weight_dimension_numbers=_as_matrices(optax.contrib),
        ),
        optax="contrib.galore",
        rtol64=1e-6,
    ),
    # Private aggregation takes gradients of another shape: test_averaged.py.
    # ------------------------------------------------------- L-BFGS and line searches
    Row(
        "lbfgs",
        dict(LR, linesearch=None),
        references.lbfgs,
        LR,
        whole_tree=True,
        # Random gradients make such pairs; on those of a loss they are equal to
        # rounding: test_lbfgs.py.
        differs="it keeps pairs of negative curvature",
    ),
    part(
        "scale_by_lbfgs",
        dict(memory_size=3, scale_init_precond=False),
        references.scale_by_lbfgs,
        whole_tree=True,
        differs="it keeps pairs of negative curvature",
    ),
    part(
        "scale_by_backtracking_linesearch",
        dict(max_backtracking_steps=5, slope_rtol=0.1, store_grad=True),
        references.backtracking,
        reference_settings=dict(
            loss=_loss_of_arrays,
            gradient=_distance_gradient,
            max_backtracking_steps=5,
            slope_rtol=0.1,
        ),
        whole_tree=True,
        extra=_search,
    ),
    # ------------------------------------------------- averages of the parameters
    Row(
        "lookahead",
        dict(fast_optimizer=jopt.sgd(0.05), sync_period=3, slow_step_size=0.5),
        references.lookahead_sgd,
        dict(LR, sync_period=3, slow_step_size=0.5),
        optax=None,  # it needs parameters of its own: test_wrappers.py
    ),
    # It moves nothing; what it keeps test_eval_params.py compares.
    part(
        "params_ema",
        dict(decay=0.9),
        references.identity,
        reference_settings={},
        optax=None,
    ),
]

# One row of each name: for what does not depend on the settings of a method.
METHODS = {row.name: row for row in reversed(ROWS)}


def form_of(tx: Any) -> frozenset[str]:
    """What an optimizer is made of, in the engine's words: all that it reads of nodes.

    Two of one form run through the same code of the engine.
    """
    found = set()
    for stage in stages(node_of(tx)):
        part = stage.part
        if stage.masks:
            found.add("masked")
        if isinstance(part, Rule):
            kinds = dict(hint=part.hint, slots=part.slots, whole=part.whole)
            found |= {kind for kind, has in kinds.items() if has}
            if part.once is None:
                found.add("elementwise")
            else:
                found.add("all leaves" if part.sees_all else "step")
        elif part.inside:
            found |= {"wrapper"}.union(*map(form_of, part.inside.values()))
        else:
            found.add("trees")
    return frozenset(found)


def _one_of_each_form() -> dict[str, Row]:
    """Rows among which each form of a method is; whole optimizers before parts."""
    found: dict[Any, Row] = {}
    for row in sorted(ROWS, key=lambda row: not row.descends):
        if row is METHODS[row.name]:
            found.setdefault((form_of(row.make()), extra_of(row)), row)
    return {row.name: row for row in found.values()}


def extra_of(row: Row) -> frozenset[str]:
    """The names of the extra arguments of an update."""
    return frozenset(row.extra({"w": np.ones((2, 2), np.float32)}) if row.extra else ())


# For what the engine promises, whatever the mathematics of a method: one of each form.
FORMS = _one_of_each_form()


def by_form(rows: Any, also: Any = ()) -> list:
    """The rows for `parametrize`; all but those of `FORMS` and of `also` are slow."""
    fast = {id(row) for row in (*FORMS.values(), *also)}
    return [
        pytest.param(row, id=row.id, marks=[] if id(row) in fast else pytest.mark.slow)
        for row in rows
    ]
