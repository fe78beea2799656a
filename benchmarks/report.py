"""Everything measured as JSON, as tables in Markdown and as a plot."""

import collections
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import subprocess
from collections.abc import Callable
from typing import Any

import jax

FOLDER = pathlib.Path(__file__).parent / "results"
PAGE = pathlib.Path(__file__).parents[1] / "docs" / "benchmarks.md"

# Ratios jopt / optax: heading -> figure.
TIMES = {
    "trace + lower": "trace_and_lower",
    "compile": "compile",
    "step": "step",
    "call": "dispatch",
    "eager": "eager_step",
    "eager, first": "first_eager_step",
}
COUNTS = {
    "equations": "equations",
    "StableHLO": "stablehlo_lines",
    "HLO": "hlo_instructions",
}


def head(label: str, **settings: Any) -> dict[str, Any]:
    """Where and with what the figures are made."""
    packages = ("jopt", "optax", "jax", "jaxlib", "numpy", "torch", "libtpu")
    return {
        "label": label,
        "settings": settings,
        "versions": {
            "python": platform.python_version(),
            **{name: _version(name) for name in packages},
        },
        "machine": {
            "cpus": os.cpu_count(),
            "device": jax.devices()[0].device_kind,
            "xla_flags": os.environ.get("XLA_FLAGS", ""),
        },
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None  # run from the source folder


def commit() -> str:
    """The short name of the commit, with a mark if files differ from it."""
    git = ["git", "-C", str(FOLDER.parent)]
    try:
        name = ["describe", "--always", "--exclude=*", "--dirty"]
        return subprocess.check_output(git + name, text=True).strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def save(report: dict[str, Any], folder: pathlib.Path) -> pathlib.Path:
    """Writes `<label>.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{report['label']}.json"
    path.write_text(json.dumps(report, indent=1) + "\n")
    return path


def merged(reports: list[dict[str, Any]]) -> dict[str, Any]:
    """One report of several runs, each result with its commit; the later run counts.

    A full run takes hours, so a tree may be measured anew alone.
    """
    found: dict[str, dict[tuple, Any]] = {}
    for report in reports:
        for part in ("steps", "tpu"):
            for result in report.get(part, ()):
                job = tuple(result.get(key) for key in ("tree", "layout", "case"))
                results = found.setdefault(part, {})
                results[job] = {"commit": report["label"], **result}
    return reports[-1] | {part: [*results.values()] for part, results in found.items()}


# ------------------------------------------------------------------------- tables


def tables(report: dict[str, Any]) -> dict[str, str]:
    """What is said of the steps that ran and of those compiled for TPU, in Markdown."""
    sections = {"steps": _steps, "tpu": _programs}
    made = {k: make(report[k]) for k, make in sections.items() if report.get(k)}
    return {name: "\n".join(lines) for name, lines in made.items()}


def _steps(results: list[dict[str, Any]]) -> list[str]:
    lines = []
    for tree in dict.fromkeys(result["tree"] for result in results):
        here = [result for result in results if result["tree"] == tree]
        times = {name: _ratio_of(figure) for name, figure in TIMES.items()}
        programs = {name: _ratio_of(figure) for name, figure in COUNTS.items()}
        programs |= {
            "words": _both("bytes_accessed", _words),
            "temporary words": _both("temporary_bytes", _words),
            "step / copy": _over("floor"),
            "step / torch": _over("torch"),
        }
        title = f"### The tree {tree}: "
        lines += [f"{title}times, jopt / optax", "", *_grid(here, times), ""]
        lines += [f"{title}programs, jopt / optax; words of jopt, of optax", ""]
        lines += [*_grid(here, programs), ""]
    return lines


def _programs(results: list[dict[str, Any]]) -> list[str]:
    columns = {
        "compile": lambda r: _number(
            r["jopt"]["compile_seconds"] / r["optax"]["compile_seconds"]
        ),
        "words": _of_each("words", lambda r, x: " or ".join(f"{w:.2f}" for w in x)),
        "collectives": _of_each("collectives", lambda r, x: f"{x}"),
        "MB of them": _of_each("collective_bytes", lambda r, x: _number(x / 1e6)),
        "temporary words": _of_each("temporary_bytes", _words),
    }
    lines = []
    for tree, layout in dict.fromkeys((r["tree"], r["layout"]) for r in results):
        here = [r for r in results if (r["tree"], r["layout"]) == (tree, layout)]
        title = f"### The tree {tree}, {layout}: compile, jopt / optax; jopt, optax"
        lines += [title, "", *_grid(here, columns), ""]
    return lines


def _grid(results: list[dict[str, Any]], columns: dict[str, Callable]) -> list[str]:
    rows = [["case", *columns]]
    for result in results:
        if "skipped" in result:
            cells = [result["skipped"], *[""] * (len(columns) - 1)]
        else:
            cells = [cell(result) for cell in columns.values()]
        rows.append([_name(result), *cells])
    widths = [max(map(len, column)) for column in zip(*rows)]
    rows.insert(1, ["-" * width for width in widths])
    return [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(cells, widths)) + " |"
        for cells in rows
    ]


def _name(result: dict[str, Any]) -> str:
    difference = result.get("difference", 0.0)
    if difference > 1e-3:  # relative to what two periods of steps changed
        return f"{result['case']} (results differ by {difference:.0e})"
    return result["case"]


def _ratio_of(figure: str) -> Callable[[dict], str]:
    def cell(result):
        found = result["figures"][figure]
        ratio, low, high = map(_number, (found["ratio"], *found["quartiles"]))
        return ratio if found["samples"] == 1 else f"{ratio} ({low}-{high})"

    return cell


def _both(figure: str, write: Callable[[dict, float], str]) -> Callable[[dict], str]:
    def cell(result):
        found = result["figures"][figure]
        return f"{write(result, found['jopt'])}, {write(result, found['optax'])}"

    return cell


def _over(peer: str) -> Callable[[dict], str]:
    def cell(result):
        found = result["figures"]["step"].get(f"over_{peer}")
        return f"{found['jopt']:.2f}, {found['optax']:.2f}" if found else ""

    return cell


def _of_each(field: str, write: Callable[[dict, Any], str]) -> Callable[[dict], str]:
    def cell(result):
        return ", ".join(write(result, result[k][field]) for k in ("jopt", "optax"))

    return cell


def _words(result: dict[str, Any], number: float) -> str:
    return f"{number / (4 * result['parameters']):.2f}"


def _number(x: float) -> str:
    return f"{x:.2f}" if x >= 0.1 else f"{x:.2g}"


def write_page(report: dict[str, Any], path: pathlib.Path) -> None:
    """Puts the tables between the marks `<!-- steps -->` and `<!-- /steps -->`.

    The same for `tpu`. Marks that are missing are added at the end.
    """
    text = path.read_text() if path.exists() else "# Benchmarks\n"
    versions = ", ".join(f"{k} {v}" for k, v in report["versions"].items() if v)
    machine = f"{report['machine']['device']}, {report['machine']['cpus']} cores"
    for name, table in tables(report).items():
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        if begin not in text:
            text += f"\n{begin}\n{end}\n"
        made = f"{_commits(report, name)}; {machine}; {versions}."
        block = f"{begin}\n\n{made}\n\n{table}\n{end}"
        pattern = f"{re.escape(begin)}.*?{re.escape(end)}"
        text = re.sub(pattern, lambda _, block=block: block, text, flags=re.S)
    path.write_text(text)


def _commits(report: dict[str, Any], part: str) -> str:
    trees = collections.defaultdict(dict)  # by commit, in order
    for result in report[part]:
        trees[result.get("commit", report["label"])][result["tree"]] = None
    if len(trees) == 1:
        return f"Commit {next(iter(trees))}"
    return "; ".join(f"commit {label}: {', '.join(trees[label])}" for label in trees)


# --------------------------------------------------------------------------- plot


def plot(report: dict[str, Any], path: pathlib.Path) -> None:
    """The ratios of times, a panel for each tree.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    results = [r for r in report["steps"] if "figures" in r]
    trees = list(dict.fromkeys(r["tree"] for r in results))
    size = (3 + 3 * len(trees), 1 + 0.4 * len({r["case"] for r in results}) + 1)
    figure = Figure(size, layout="constrained")
    panels = figure.subplots(1, len(trees), squeeze=False)[0]
    for panel, tree in zip(panels, trees):
        here = [r for r in results if r["tree"] == tree][::-1]
        for heading, name in TIMES.items():
            ratios = [r["figures"][name]["ratio"] for r in here]
            panel.plot(ratios, range(len(here)), "o", label=heading)
        panel.set_yticks(range(len(here)), [r["case"] for r in here])
        panel.set(title=f"The tree {tree}", xlabel="time, jopt / optax", xscale="log")
        panel.axvline(1.0, color="black", linewidth=0.8)
        panel.grid(axis="both", alpha=0.3)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(TIMES))
    figure.savefig(path, dpi=120)
