"""What a study found: table, numbers and picture of its finished runs."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from eyetoy_mm.engine.study import Cost, Study, deviations
from eyetoy_mm.engine.study_runs import Result, this_machine
from eyetoy_mm.tables import markdown_table
from eyetoy_mm.whole_files import replacing, write_whole

Results = Mapping[tuple[str, int], Result]


def write_report(
    study: Study,
    costs: Mapping[str, Cost],
    results: Results,
    folder: Path,
    command: str,
    machines: Sequence[str] = (),
) -> list[Path]:
    """Write ``NAME.md``, ``NAME.json`` and ``NAME.png``.

    Args:
        study: The study.
        costs: Of its variants.
        results: Of its runs that are finished; the others are shown as missing.
        folder: Where they go.
        command: The command line, which is shown too.
        machines: Those that trained the runs, where that is known.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{study.name}{suffix}" for suffix in (".md", ".json", ".png")]
    parts = (f"# {study.name}", study.question, table(study, costs, results), notes(study, results, command, machines))
    write_whole(files[0], "\n\n".join(parts) + "\n")
    write_whole(files[1], json.dumps(as_json(study, costs, results, command, machines), indent=1) + "\n")
    with replacing(files[2]) as file:
        picture(study, results).savefig(file, dpi=120, format="png")
    return files


def table(study: Study, costs: Mapping[str, Cost], results: Results) -> str:
    """A row for each variant: mean and spread over those seeds that are there, each of them, and what it costs."""
    shares = deviations(costs)
    digits = 2 if any(abs(run.metric) > 1 for run in results.values()) else 4  # mmdet's are shares, others per cent
    rows = []
    for name, cost in costs.items():
        runs = [results.get((name, seed)) for seed in study.seeds]
        there = [run for run in runs if run is not None]
        rows.append(
            [
                _cell(name),
                _mean_and_spread([run.metric for run in there], digits),
                ", ".join("missing" if run is None else f"{run.metric:.{digits}f}" for run in runs),
                _mean_and_spread([run.loss for run in there], 3),
                f"{cost.parameters / 1e6:.2f} M",
                f"{cost.flops / 1e9:.3f} G ({shares[name]:+.1%})",
                _median([run.images_per_second for run in there], "{:.1f}"),
                _median([run.memory for run in there], "{:,.0f} MB"),
            ]
        )
    seeds = ", ".join(map(str, study.seeds))
    header = [study.metric, f"seeds {seeds}", "training loss", "parameters", "FLOPs", "images/s", "peak memory"]
    return markdown_table(["variant", *header], rows)


def notes(study: Study, results: Results, command: str, machines: Sequence[str] = ()) -> str:
    """What the table does not say."""
    height, width = study.image
    missing = len(study.runs()) - len(results)
    return (
        f"{study.metric} of the last evaluation, after {study.length}; mean ± standard deviation over n seeds. The "
        "training loss is the mean over the last tenth of the steps. FLOPs "
        f"are those of an image of {width}x{height}, with their difference from the first row; images/s those of "
        "training, by the median of its steps, and memory the most that a run had: both medians over seeds. "
        + (f"On {'; '.join(machines)}. " if machines else f"The table was made on {this_machine()}. ")
        + (f"**{missing} of {len(study.runs())} runs are missing.** " if missing else "")
        + f"Command: `{command}`."
    )


def as_json(
    study: Study, costs: Mapping[str, Cost], results: Results, command: str, machines: Sequence[str] = ()
) -> dict[str, Any]:
    """Everything that the table is made of."""
    shares = deviations(costs)
    variants = {}
    for name, cost in costs.items():
        runs = {seed: results.get((name, seed)) for seed in study.seeds}
        variants[name] = dict(
            parameters=cost.parameters,
            flops=cost.flops,
            flops_deviation=round(shares[name], 5),
            runs={str(seed): None if run is None else _numbers(run) for seed, run in runs.items()},
            model=study.variants[name].model.to_dict(),
        )
    return dict(
        study=study.name,
        question=study.question,
        metric=study.metric,
        image=list(study.image),
        length=str(study.length),
        command=command,
        machine="; ".join(machines) or f"unknown; the table was made on {this_machine()}",
        variants=variants,
    )


def picture(study: Study, results: Results) -> Figure:
    """A point for each run and a bar for mean and spread, a row for each variant."""
    names = list(study.variants)
    figure = Figure(figsize=(7, 1.2 + 0.45 * len(names)), layout="constrained")
    panel = figure.subplots()
    for row, name in enumerate(names):
        values = [results[name, seed].metric for seed in study.seeds if (name, seed) in results]
        panel.plot(values, [row] * len(values), "o", color="tab:blue", alpha=0.6, markersize=5)
        if values:
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            panel.errorbar(statistics.mean(values), row, xerr=spread, fmt="|", color="black", capsize=4, markersize=14)
    panel.set(yticks=range(len(names)), ylim=(len(names) - 0.5, -0.5))
    panel.set_xlabel(study.metric, parse_math=False)  # a $ in a name is no formula
    panel.set_title(study.name, parse_math=False)
    panel.set_yticklabels(names, parse_math=False)
    panel.grid(axis="x", alpha=0.3)
    return figure


def _cell(name: str) -> str:
    """A name as the cell of a table, whose columns are between bars."""
    return " ".join(name.replace("|", "\\|").split())


def _mean_and_spread(values: list[float], digits: int) -> str:
    if not values:
        return "missing"
    values = [value for value in values if not math.isnan(value)]
    if not values:  # nothing of it was logged
        return "-"
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread} (n={len(values)})"


def _median(values: list[float], form: str) -> str:
    known = [value for value in values if not math.isnan(value)]
    return form.format(statistics.median(known)) if known else "-"


def _numbers(run: Result) -> dict[str, float | None]:
    """JSON has no NaN."""
    return {key: None if math.isnan(value) else round(value, 4) for key, value in run.__dict__.items()}
