"""What a type checker in strict mode sees of the package, in a program that uses it."""

import functools
import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

import jopt

from .test_names import MODULES, RENAMED

PROGRAM = pathlib.Path(__file__).parent / "typing" / "program.py"
OURS = [module for module in MODULES if module != "second_order"]

# basic, in which a type that is not known passes
WRONG = """
# pyright: basic
import jopt

jopt.cosine_decay_schedule(1.0, steps=10)
jopt.adam(1e-3, b_1=0.9)
jopt.l2_loss()
jopt.MultiSteps(jopt.sgd(0.1))
jopt.chain(jopt.linear_schedule(1.0, 0.0, 10))
"""


@pytest.fixture(scope="module")
def errors(tmp_path_factory):
    """What basedpyright says of each file, as `{line: messages}`."""
    beside = pathlib.Path(sys.executable).with_name("basedpyright")
    checker = str(beside) if beside.exists() else shutil.which("basedpyright")
    if checker is None:
        pytest.skip("basedpyright is not installed")
    folder = tmp_path_factory.mktemp("typing")
    (folder / "program.py").write_text(PROGRAM.read_text())
    (folder / "names.py").write_text(every_name())
    (folder / "unknown.py").write_text(unknown_names())
    (folder / "wrong.py").write_text(WRONG.lstrip())
    (folder / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}')
    # the package is found as an installed one is, for its own files are held to less
    path = str(pathlib.Path(jopt.__file__).parents[1])
    run = subprocess.run(
        [checker, "--pythonpath", sys.executable, "--outputjson", "."],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.stdout, f"basedpyright said nothing: {run.returncode} {run.stderr}"
    found = {}
    for line in json.loads(run.stdout)["generalDiagnostics"]:
        of_file = found.setdefault(pathlib.Path(line["file"]).name, {})
        at = of_file.setdefault(line["range"]["start"]["line"], [])
        at.append(line["message"])
    return found


def every_name():
    """A file that uses every public name, and the deprecated ones."""
    lines = ["import jopt", "", "def use(x: object) -> None: ...", ""]
    for module in OURS:
        home = functools.reduce(getattr, filter(None, module.split(".")), jopt)
        lines += [f"use({address(module, name)})" for name in home.__all__]
    lines += [f"use({address('', name)})" for name in RENAMED]
    return "\n".join([*lines, ""])


def unknown_names():
    return "\n".join(["import jopt", *(address(m, "no_such") for m in OURS), ""])


def address(module, name):
    return ".".join(filter(None, ["jopt", module, name]))


def test_the_program_runs(capsys):
    spec = importlib.util.spec_from_file_location("typed_program", PROGRAM)
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    program.main()
    assert capsys.readouterr().out.startswith("0.8080")


def test_a_strict_checker_accepts_the_program(errors):
    assert errors.get("program.py", {}) == {}


def test_every_public_name_is_exported_and_wholly_known(errors):
    assert errors.get("names.py", {}) == {}


def test_an_unknown_name_is_an_error_in_every_module(errors):
    assert [*errors["unknown.py"]] == [*range(1, len(OURS) + 1)]


def test_signatures_of_factories_are_checked(errors):
    assert [*errors["wrong.py"]] == [3, 4, 5, 6, 7]
