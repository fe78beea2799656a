"""Every public name of optax under the same address, with the same parameters."""

import enum
import importlib
import inspect
import pathlib
import pkgutil
import re
import sys
import warnings

import chex
import jax
import jax.numpy as jnp
import optax
import pytest

import jopt

MODULES = [
    "",
    "assignment",
    "contrib",
    "experimental.aggregating",
    "losses",
    "microbatching",
    "perturbations",
    "projections",
    "schedules",
    "second_order",
    "transforms",
    "tree",
    "tree_utils",
]

# Parameters that differ from optax's, and why.
DIFFERENT: dict[str, str] = {
    "dpsgd": "key, and seed by keyword, as in optax's next release",
    "sophia": "None stands for Hutchinson's estimator",
}


def two_updates(tx):
    state = tx.init(jnp.ones(2))
    with jax.numpy_dtype_promotion("standard"):
        _, state = tx.update(jnp.array([1.0, -2.0]), state)
        u, _ = tx.update(jnp.array([3.0, 1.0]), state)
    return jnp.round(u, 3)  # to optax's rounding


# Deprecated names that programs still use, and the calls that show what they are.
RENAMED = {
    "global_norm": lambda f: f({"w": jnp.array([3.0, 4.0])}),
    "inject_stateful_hyperparams": lambda f: f(optax.sgd)(0.1).init({}).hyperparams,
    "optimistic_adam": lambda f: two_updates(f(0.1, 0.3)),
    "safe_int32_increment": lambda f: f(2**31 - 1),
    "tree_utils.tree_add_scalar_mul": lambda f: f(1.0, 2.0, 3.0),
    "tree_utils.tree_l1_norm": lambda f: f(jnp.array([3.0, -4.0])),
    "tree_utils.tree_l2_norm": lambda f: f(jnp.array([3.0, -4.0])),
    "tree_utils.tree_linf_norm": lambda f: f(jnp.array([3.0, -4.0])),
    "tree_utils.tree_scalar_mul": lambda f: f(2.0, 3.0),
}

# Names that jopt leaves out, and what replaces them.
LEFT_OUT: dict[str, str] = {
    "schedules.inject_stateful_hyperparams": "deprecated: inject_hyperparams",
    "second_order.fisher_diag": "deprecated",
    "second_order.hessian_diag": "deprecated",
    "second_order.hvp": "deprecated",
}


def at(library, module):
    for name in filter(None, module.split(".")):
        library = getattr(library, name)
    return library


def public_names():
    for module in MODULES:
        home = at(optax, module)
        for name in dir(home):
            with warnings.catch_warnings():
                warnings.simplefilter("error", DeprecationWarning)
                try:
                    value = getattr(home, name)
                except DeprecationWarning:
                    continue
            ours = getattr(value, "__module__", "") or ""
            if not name.startswith("_") and ours.startswith("optax"):
                yield f"{module}.{name}".strip("."), value


NAMES = {name: value for name, value in public_names() if name not in RENAMED}


def test_every_name_has_its_address():
    missing = []
    for name in NAMES:
        try:
            at(jopt, name)
        except AttributeError:
            missing.append(name)
    assert sorted(set(missing) - set(LEFT_OUT)) == []
    assert sorted(set(LEFT_OUT) - set(missing)) == [], "these are there"


def test_every_name_is_in_the_table():
    page = pathlib.Path(__file__).parents[1] / "docs" / "names.md"
    rows = dict(
        re.findall(r"^\| `jopt\.?([\w.]*)` \| (.*) \|$", page.read_text(), re.M)
    )
    listed = {
        f"{address}.{name}".strip(".")
        for address, names in rows.items()
        for name in re.findall(r"`(\w+)`", names)
    }
    assert listed == set(NAMES) - set(LEFT_OUT)


# What a package shows besides the names of its own files.
MORE = {
    "": {module.split(".")[0] for module in MODULES[1:]} - {"second_order"},
    "experimental": {"aggregating"},
}
# Packages of their own files, and such as gather names from all.
PACKAGES = ["losses", "optimizers", "parts", "parts.linesearch", "projections"]
PACKAGES += ["curves", "reading", "tree", "wrappers"]
GATHERING = ["", "contrib", "experimental", "schedules", "transforms"]
FILES = {
    name: importlib.import_module(name).__all__
    for _, name, is_package in pkgutil.walk_packages(jopt.__path__, "jopt.")
    if not is_package or name == "jopt.engine"
}


@pytest.mark.parametrize("address", [*PACKAGES, *GATHERING])
def test_packages_show_what_their_files_name(address):
    home = at(jopt, address)
    shown, more = set(dir(home)), MORE.get(address, set())
    assert more <= shown == set(home.__all__)
    if address in GATHERING:
        assert shown - more <= set().union(*FILES.values())
    else:
        mine = [names for file, names in FILES.items() if f"{home.__name__}." in file]
        assert shown - more == set().union(*mine)
    # Importing a file binds it in its package, and in no other.
    for name in {name for name in vars(home) if name[0] != "_"} - shown:
        assert vars(home)[name] is sys.modules.get(f"{home.__name__}.{name}"), name


def test_files_name_no_modules():
    for file, names in FILES.items():
        values = vars(sys.modules[file])
        assert not [name for name in names if inspect.ismodule(values[name])]


@pytest.mark.parametrize("name", RENAMED)
def test_a_deprecated_name_warns_and_does_what_it_did(name):
    module, _, last = name.rpartition(".")
    assert last not in dir(at(jopt, module))
    with pytest.warns(DeprecationWarning, match=f"jopt.{name} is deprecated: use"):
        ours = at(jopt, name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        chex.assert_trees_all_close(RENAMED[name](ours), RENAMED[name](at(optax, name)))


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="'jopt' has no attribute 'adamx'"):
        at(jopt, "adamx")
    with pytest.raises(ImportError, match="adamx"):
        exec("from jopt import adamx")


def parameters(function):
    """Names, kinds and defaults, the last as text: libraries' own types differ."""
    kinds = inspect.Parameter
    for p in inspect.signature(function).parameters.values():
        if p.kind is kinds.VAR_KEYWORD or p.kind is kinds.VAR_POSITIONAL:
            continue
        default = p.default
        if isinstance(default, enum.Enum):
            default = str(default)
        elif callable(default) or hasattr(default, "init"):
            default = p.empty if default is p.empty else "a function"
        elif not isinstance(default, (int, float, str, tuple)):
            default = type(default).__name__
        yield p.name, p.kind, default


@pytest.mark.parametrize(
    "name", [n for n, value in NAMES.items() if inspect.isfunction(value)]
)
def test_parameters(name):
    if name in LEFT_OUT:
        pytest.skip(LEFT_OUT[name])
    theirs = list(parameters(NAMES[name]))
    ours = list(parameters(at(jopt, name)))
    by_place, ours_by_place = (
        [p for p in given if p[1] is not inspect.Parameter.KEYWORD_ONLY]
        for given in (theirs, ours)
    )
    # What jopt adds comes last or by keyword alone.
    same = set(theirs) <= set(ours) and ours_by_place[: len(by_place)] == by_place
    assert same or name.split(".")[-1] in DIFFERENT, f"{theirs}\n{ours}"
