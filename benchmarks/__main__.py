"""The command: `python -m benchmarks`."""

import argparse
import json
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import optax
from tqdm import tqdm

import jopt

from . import measure, report, sampling, tpu, trees
from .cases import CASES


def main(argv: list[str] | None = None) -> None:
    args = arguments(argv)
    libraries = {"jopt": optax if args.control else jopt, "optax": optax}
    if args.read:
        document = report.merged([json.loads(path.read_text()) for path in args.read])
    else:
        label = args.label or report.commit()
        document = report.head(label, quick=args.quick, control=args.control)
        if "steps" in args.parts:
            run(
                document,
                args.folder,
                "steps",
                jobs(args, trees.TREES),
                steps(libraries, args),
            )
        if "tpu" in args.parts:
            run(document, args.folder, "tpu", tpu_jobs(args), programs(libraries))
        print(f"\n{report.save(document, args.folder)}", file=sys.stderr)

    for table in report.tables(document).values():
        print(f"\n{table}")
    if args.write_docs:
        report.write_page(document, args.write_docs)
    if document.get("steps"):
        path = args.folder / f"{document['label']}.png"
        try:
            report.plot(document, path)
        except ImportError:
            print("no plot: matplotlib is not installed", file=sys.stderr)


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m benchmarks", description="jopt / optax, as ratios of medians"
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="in three minutes")
    add("--cases", nargs="+", choices=CASES, help="the optimizers")
    add("--trees", nargs="+", choices={**trees.TREES, **tpu.TREES}, help="the params")
    add(
        "--parts",
        nargs="+",
        choices=("steps", "tpu"),
        help="steps that run here; steps compiled for TPU, which needs libtpu and "
        "without a TPU JAX_PLATFORMS=cpu. Both if they can, only the first if quick",
    )
    add("--control", action="store_true", help="optax beside itself: the noise")
    add("--label", help="of the results; the commit if not given")
    add("--folder", type=pathlib.Path, default=report.FOLDER, help="of the results")
    add(
        "--read",
        nargs="+",
        type=pathlib.Path,
        metavar="JSON",
        help="results, to show once more; of several runs the later counts",
    )
    add(
        "--write-docs",
        nargs="?",
        type=pathlib.Path,
        const=report.PAGE,
        metavar="PAGE",
        help="update the tables of a page, docs/benchmarks.md if not named",
    )
    args = parser.parse_args(argv)
    if args.parts is None:
        both = tpu.installed() and not args.quick
        args.parts = ["steps", "tpu"] if both else ["steps"]
    if "tpu" in args.parts and not tpu.installed():
        parser.error(
            "--parts tpu needs libtpu (pip install 'jax[tpu]') and a JAX with "
            "jax.experimental.topologies"
        )
    return args


def jobs(args: argparse.Namespace, known: dict[str, Any]) -> list[dict[str, str]]:
    """Every tree with every case that is measured on it."""
    usual = trees.QUICK if args.quick else trees.FULL if known is trees.TREES else known
    return [
        {"tree": tree, "case": case}
        for tree in (args.trees or usual)
        if tree in known
        for case in (args.cases or CASES)
        if args.trees or not CASES[case].trees or tree in CASES[case].trees
    ]


def tpu_jobs(args: argparse.Namespace) -> list[dict[str, str]]:
    """The same with every layout."""
    return [
        {"tree": job["tree"], "layout": layout, "case": job["case"]}
        for layout in tpu.LAYOUTS
        for job in jobs(args, tpu.TREES)
    ]


def steps(libraries: dict, args: argparse.Namespace) -> Callable:
    effort = sampling.QUICK if args.quick else sampling.FULL

    def one(job, say):
        shapes = trees.TREES[job["tree"]]
        figures = measure.compare(libraries, CASES[job["case"]], shapes, effort, say)
        return {"parameters": trees.count(shapes), **figures}

    return one


def programs(libraries: dict) -> Callable:
    tpu.compare(libraries, CASES["sgd"], trees.TREES["tiny"], 1)  # warm

    def one(job, say):
        shapes, chips = tpu.TREES[job["tree"]], tpu.LAYOUTS[job["layout"]]
        say(f"for TPU, {job['layout']}")
        made = tpu.compare(libraries, CASES[job["case"]], shapes, chips)
        return {"parameters": trees.count(shapes) / chips, **made}

    return one


def run(
    document: dict[str, Any],
    folder: pathlib.Path,
    part: str,
    jobs: list[dict[str, str]],
    measure: Callable,
) -> None:
    """Measures all, and saves what there is after each."""
    results = document[part] = []
    bar = tqdm(jobs)
    for job in bar:

        def say(what, job=job):
            bar.set_description(f"{job['tree']} {job['case']}: {what}")

        try:
            results.append(job | measure(job, say))
        except AttributeError as error:
            if error.name is None or error.obj is not jopt:
                raise
            results.append(job | {"skipped": f"jopt has no {error.name} yet"})
        report.save(document, folder)
    bar.close()


if __name__ == "__main__":
    main()
