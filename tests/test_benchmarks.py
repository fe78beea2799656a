"""The benchmark measures what it says; how fast anything is, no test asks."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("optax")
pytest.importorskip("tqdm")

from benchmarks import measure, report, sampling, trees
from benchmarks.cases import CASES
from benchmarks.counts import equations, instructions
from benchmarks.peers import Floor

ROOT = pathlib.Path(__file__).parents[1]


def test_the_command_writes_figures_tables_and_a_page(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Ours\n\n<!-- steps -->\nold\n<!-- /steps -->\nKept.\n")
    command = [sys.executable, "-m", "benchmarks", "--quick", "--trees", "mlp6"]
    command += ["--cases", "sgd", "--folder", str(tmp_path), "--label", "a"]
    done = subprocess.run(
        [*command, "--write-docs", str(page)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr

    document = json.loads((tmp_path / "a.json").read_text())
    assert document["label"] == "a" and document["versions"]["optax"]
    (result,) = document["steps"]
    assert (result["tree"], result["case"]) == ("mlp6", "sgd")
    assert result["parameters"] == 784 * 256 + 256 + 256 * 128 + 128 + 128 * 10 + 10
    assert result["difference"] < 1e-3
    figures = result["figures"]
    known = {*report.TIMES.values(), *report.COUNTS.values()}
    assert known | {"bytes_accessed", "temporary_bytes"} <= set(figures)
    for figure in known:
        low, high = figures[figure]["quartiles"]
        assert 0 < low <= figures[figure]["ratio"] <= high
        assert figures[figure]["jopt"] > 0 and figures[figure]["optax"] > 0
    assert set(figures["step"]["over_floor"]) == {"jopt", "optax"}

    assert "| sgd " in done.stdout and "The tree mlp6" in done.stdout
    text = page.read_text()
    assert text.startswith("# Ours\n\n<!-- steps -->\n\nCommit a; cpu")
    assert text.endswith("<!-- /steps -->\nKept.\n")
    assert "| sgd " in text and "old" not in text


def test_a_page_that_is_missing_is_begun_and_tables_not_measured_stay(tmp_path):
    machine = {"device": "cpu", "cpus": 2}
    program = {"compile_seconds": 1.0, "words": [7.0], "collectives": 0}
    program |= {"collective_bytes": 0, "temporary_bytes": 0}
    result = {"tree": "t", "layout": "l", "case": "c", "parameters": 1}
    result |= {"jopt": program, "optax": program | {"words": [3.0, 8.0]}}
    document = {"label": "a", "versions": {}, "machine": machine, "tpu": [result]}
    page = tmp_path / "page.md"
    report.write_page(document, page)
    assert "| c    | 1.00    | 7.00, 3.00 or 8.00 |" in page.read_text()
    before = page.read_text()
    report.write_page(document | {"tpu": []}, page)
    assert page.read_text() == before
    faster = result | {"jopt": program | {"compile_seconds": 0.5}}
    later = document | {"label": "b", "tpu": [faster, result | {"tree": "u"}]}
    first = document | {"tpu": [result, result | {"tree": "v"}]}
    report.write_page(report.merged([first, later]), page)
    assert "commit b: t, u; commit a: v; cpu" in page.read_text()
    assert page.read_text().count("| c    | 0.50 ") == 1


def test_a_program_that_repeats_a_function_has_its_equations_once_or_each_time():
    @jax.jit
    def inner(x):
        return jnp.sin(x) + 1.0  # two equations

    jaxpr = jax.make_jaxpr(lambda x: inner(inner(x)) * 2.0)(1.0).jaxpr  # two and one
    assert equations(jaxpr, {}, once=True) == 5
    assert equations(jaxpr, {}, once=False) == 7


def test_the_instructions_of_all_computations_count():
    hlo = """HloModule m

%f (a: f32[2]) -> f32[2] {
  %a = f32[2]{0} parameter(0)
  ROOT %b = f32[2]{0} negate(%a)
}

ENTRY %main (x.1: f32[2]) -> f32[2] {
  %x.1 = f32[2]{0} parameter(0)
  ROOT %y = f32[2]{0} fusion(%x.1), kind=kLoop, calls=%f
}
"""
    assert instructions(hlo) == 4


@pytest.mark.parametrize("words", [3, 5, 7, 8])
def test_a_copy_reads_and_writes_as_many_words_as_it_says(words):
    params = {"a": jnp.ones(100_000), "b": jnp.ones((100, 200))}
    floor = Floor((words,), params)
    cost = floor.programs[words].cost_analysis()
    # There are some bytes of pointers too.
    assert cost["bytes accessed"] == pytest.approx(4 * words * 120_000, rel=1e-3)
    assert floor.programs[words].memory_analysis().temp_size_in_bytes < 1000
    first = floor.copies[words][0][0]["a"]
    assert floor.step(2)["step"] > 0
    assert first.is_deleted(), "it must write in place"


def test_samples_are_taken_in_turns_and_ratios_are_of_neighbours():
    order, clock = [], iter(range(1, 100))

    def sample(side):
        order.append(side)
        return {"n": float(next(clock))}

    effort = sampling.Effort(seconds=0.0, least=3, most=9, in_a_row=0.0)
    taken = sampling.alternate({"jopt": "j", "optax": "o"}, sample, effort)
    assert "".join(order) == "joojjo"
    assert taken == {"n": {"jopt": [1, 4, 5], "optax": [2, 3, 6]}}

    made = sampling.summary(**taken["n"], floor=[1.0, 2.0, 5.0])
    assert (made["jopt"], made["optax"], made["samples"]) == (4, 3, 3)
    np.testing.assert_allclose(made["ratio"], 5 / 6)  # of 1/2, 4/3 and 5/6
    np.testing.assert_allclose(made["quartiles"], [(1 / 2 + 5 / 6) / 2, 13 / 12])
    assert made["over_floor"] == {
        "jopt": 1.0,
        "optax": 1.5,
    }  # of 1, 2, 1; of 2, 3/2, 6/5


def test_the_difference_is_relative_to_the_change():
    start, ours, theirs = (
        {"p": jnp.array(x)} for x in ([1.0, 1.0], [2.0, 3.0], [2.5, 3.0])
    )
    assert measure.distance(ours, theirs, start) == 0.25


def test_trees_are_what_their_names_say():
    sizes = {name: (len(t), trees.count(t)) for name, t in trees.TREES.items()}
    assert sizes["gpt2"] == (148, 124_439_808)
    assert sizes["gpt2_small"][0] == 148 and 7e6 < sizes["gpt2_small"][1] < 9e6
    assert sizes["4x16M"] == (4, 4 * 4096**2)
    assert {sizes["2000"][0], sizes["400"][0]} == {2000, 400}
    assert all(shape[0] == 12 for shape in trees.TREES["scan12"].values())
    named = {*trees.FULL, *trees.QUICK, *(t for c in CASES.values() for t in c.trees)}
    assert named <= set(trees.TREES)
