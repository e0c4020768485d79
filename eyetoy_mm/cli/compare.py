"""Compare variants of a model at equal cost: train each with several seeds under one recipe, and show what they reach.

Examples::

    eyetoy compare studies/camvid_architecture.py --data-root path/to/camvid --plan    # on paper: costs, expected hours
    eyetoy compare studies/camvid_architecture.py --data-root path/to/camvid
    eyetoy compare studies/camvid_architecture.py --data-root path/to/camvid --report  # of what is finished by now

Runs take turns, seed by seed, each an ordinary `eyetoy train` in work_dirs/studies/NAME. Start it again after it was
cut off, however that was: finished runs stay, others go on from their last checkpoint. Table, JSON and plot show
finished runs alone, and which are missing. studies/README.md says how a study is written.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from eyetoy_mm.cli.options import add_data_root, add_work_dir, positive
from eyetoy_mm.errors import UserError, counted
from eyetoy_mm.tables import for_terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.add_argument("study", type=Path, metavar="STUDY", help="Python file with variants, seeds and a recipe")
    add_data_root(parser)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--plan", action="store_true", help="say what it costs, and train nothing")
    what.add_argument("--report", action="store_true", help="write table and plot of what is there, and train nothing")
    parser.add_argument(
        "--timed-steps", type=positive, default=3, metavar="N", help="steps that are timed for the plan"
    )
    add_work_dir(parser, "work_dirs/studies/<study name>")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("docs/results"),
        metavar="FOLDER",
        help="folder for table, JSON and plot (default: docs/results)",
    )


def run(args: argparse.Namespace) -> None:
    """Plan, train, write."""
    from eyetoy_mm.engine.study import check_equal_cost, measure_costs, plan, read_study
    from eyetoy_mm.engine.study_report import table, write_report
    from eyetoy_mm.engine.study_runs import Elsewhere, check_unchanged, machines, results, train_missing, write_configs
    from eyetoy_mm.paths import check_folder

    check_folder("--out", args.out)
    study = read_study(args.study, args.data_root)
    folder = Path(args.work_dir or Path("work_dirs/studies", study.name))
    check_unchanged(study, folder, only_report=args.report)
    costs = measure_costs(study, 0 if args.report else args.timed_steps)
    if not args.report:
        print(for_terminal(plan(study, costs, len(results(study, folder)))), flush=True)
    if args.plan:
        return
    check_equal_cost(study, costs)
    command = f"eyetoy compare {shlex.quote(str(args.study))}"

    def report() -> None:
        found = results(study, folder)
        write_report(study, costs, found, args.out, command, machines(folder, found))

    failed, elsewhere = [], 0
    if not args.report:
        write_configs(study, folder)
        for variant, seed, output in train_missing(study, folder):
            if isinstance(output, Elsewhere):
                print(f"{variant}, seed {seed}: is trained elsewhere ({output})", flush=True)
                elsewhere += 1
                continue
            print(f"{variant}, seed {seed}: {'finished' if output is None else 'failed'}", flush=True)
            if output is not None:
                failed.append(f"{variant}, seed {seed}:\n{output}")
            report()
    report()
    written = f"{args.out / study.name}.md, .json, .png"
    print(f"\n{for_terminal(table(study, costs, results(study, folder)))}\n\n-> {written}", flush=True)
    if elsewhere:
        print(f"{counted(elsewhere, 'run')} of it left to others; start this again when they have ended", flush=True)
    if failed:
        print("\n\n".join(failed), file=sys.stderr)
        raise UserError(
            f"{len(failed)} of {len(study.runs())} runs failed; their whole output is in {folder}/*/*/output.txt"
        )
