"""The examples run, learn, and print what they learned."""

import importlib.util
import pathlib
import re

import pytest

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"


def run_example(name, *args, capsys):
    """What the example prints: pairs of test accuracy and test loss."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(list(map(str, args)))
    out = capsys.readouterr().out
    found = re.findall(r"test accuracy ([\d.]+)%, test loss ([\d.]+)", out)
    return [(float(accuracy), float(loss)) for accuracy, loss in found]


def test_quickstart_learns_and_draws(capsys, tmp_path):
    plot = tmp_path / "losses.png"
    results = run_example("quickstart", "--plot", plot, capsys=capsys)
    assert len(results) == 3
    for accuracy, loss in results:
        assert accuracy > 96
        assert loss < 0.15
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_functional_learns(capsys):
    ((accuracy, loss),) = run_example("functional", capsys=capsys)
    assert accuracy > 96
    assert loss < 0.15


def test_finetune_learns_on_with_a_changed_chain(capsys):
    ((accuracy, loss),) = run_example("finetune", capsys=capsys)
    assert accuracy > 95
    assert loss < 0.15


@pytest.mark.parametrize(
    "path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name
)
def test_examples_are_short(path):
    assert len(path.read_text().splitlines()) < 80
