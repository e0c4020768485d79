"""Run the toolboxes' own tools on small configs of ours, as ``eyetoy tool`` runs them: which of them work?

    python benchmarks/toolbox_tools.py --into docs/toolbox-tools.md       # about ten minutes on two cores

From the repository. What converts data sets and foreign checkpoints, or needs a server, is not run.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from eyetoy_mm.tables import markdown_table, write_into

ROOT = Path(__file__).resolve().parent.parent
PHOTO = sorted((ROOT / "data/sample/images/validation").glob("*.jpg"))[0]
SECONDS = 300

SEG, DET, CLS = (
    f"configs/sample/{name}.py"
    for name in ("upernet_eyetoy-demo_sample", "mask-rcnn_eyetoy-demo_sample", "eyetoy-shallow_caltech101-sample")
)
_HOOKS = "default_hooks.logger.interval=1 default_hooks.checkpoint.interval"
_SHORT_SEG = f"train_cfg.max_iters=2 train_cfg.val_interval=2 {_HOOKS}=2"
_SHORT = f"train_cfg.max_epochs=1 train_cfg.val_interval=1 {_HOOKS}=1"
_FEW = "train_dataloader.dataset.indices=4"
_CLASSES = " ".join(f"{split}_dataloader.dataset.data_root=WORK/classes" for split in ("train", "val", "test"))

# What a tool reads, an earlier one of the same toolbox writes.
TOOLS = {
    "mmdet": f"""
        train {DET} --work-dir WORK/run --cfg-options {_SHORT} {_FEW}
        test {DET} WORK/run/epoch_1.pth --work-dir WORK/test --out WORK/results.pkl \
            --cfg-options test_evaluator.outfile_prefix=WORK/coco
        analysis_tools/analyze_logs plot_curve LOG --keys loss --out WORK/loss.png
        analysis_tools/analyze_results {DET} WORK/results.pkl WORK/analyzed --topk 2
        analysis_tools/benchmark {DET} --checkpoint WORK/run/epoch_1.pth --max-iter 12 \
            --num-warmup 2 --work-dir WORK/speed
        analysis_tools/browse_dataset {DET} --output-dir WORK/shown --not-show --cfg-options {_FEW}
        analysis_tools/coco_error_analysis WORK/coco.bbox.json WORK/errors \
            --ann data/sample/annotations/instances_val.json
        analysis_tools/confusion_matrix {DET} WORK/results.pkl WORK/confusion
        analysis_tools/eval_metric {DET} WORK/results.pkl
        analysis_tools/get_flops {DET} --num-images 1
        analysis_tools/optimize_anchors {DET} --algorithm k-means --input-shape 320 240 --device cpu --output-dir WORK
        misc/get_image_metas {DET} --out WORK/metas.pkl --nproc 1
        misc/print_config {DET}
        model_converters/publish_model WORK/run/epoch_1.pth WORK/published.pth
    """,
    "mmseg": f"""
        train {SEG} --work-dir WORK/run --cfg-options {_SHORT_SEG}
        test {SEG} WORK/run/iter_2.pth --work-dir WORK/test --out WORK/predictions
        analysis_tools/analyze_logs LOG --keys loss --out WORK/loss.png
        analysis_tools/benchmark {SEG} WORK/run/iter_2.pth --work-dir WORK/speed
        analysis_tools/browse_dataset {SEG} --output-dir WORK/shown --not-show --cfg-options {_FEW}
        analysis_tools/confusion_matrix {SEG} WORK/predictions WORK/confusion
        analysis_tools/get_flops {SEG} --shape 128
        analysis_tools/visualization_cam {PHOTO} {SEG} WORK/run/iter_2.pth --out-file WORK/seg.png \
            --cam-file WORK/cam.png --device cpu
        deployment/pytorch2torchscript {SEG} --checkpoint WORK/run/iter_2.pth \
            --output-file WORK/model.pt --shape 128 128
        misc/browse_dataset {SEG} --output-dir WORK/shown --not-show --cfg-options {_FEW}
        misc/print_config {SEG}
        misc/publish_model WORK/run/iter_2.pth WORK/published.pth
    """,
    "mmpretrain": f"""
        train {CLS} --work-dir WORK/run --cfg-options {_SHORT} param_scheduler=None {_CLASSES}
        test {CLS} WORK/run/epoch_1.pth --work-dir WORK/test --out WORK/results.pkl --cfg-options {_CLASSES}
        analysis_tools/analyze_logs plot_curve LOG --keys loss --out WORK/loss.png
        analysis_tools/analyze_results {CLS} WORK/results.pkl --out-dir WORK/analyzed --topk 2 --cfg-options {_CLASSES}
        analysis_tools/confusion_matrix {CLS} WORK/run/epoch_1.pth --out WORK/confusion.pkl --cfg-options {_CLASSES}
        analysis_tools/eval_metric WORK/results.pkl --metric type=Accuracy topk=1
        analysis_tools/get_flops {CLS} --shape 64
        misc/print_config {CLS}
        misc/verify_dataset {CLS} --out-path WORK/broken.log --phase train --num-process 1 --cfg-options {_CLASSES}
        model_converters/publish_model WORK/run/epoch_1.pth WORK/published.pth
        visualization/browse_dataset {CLS} --output-dir WORK/shown --not-show --show-number 2 --cfg-options {_CLASSES}
        visualization/vis_cam {PHOTO} {CLS} WORK/run/epoch_1.pth --save-path WORK/cam.png
        visualization/vis_scheduler {CLS} --not-show --save-path WORK/lr.png --dataset-size 48 --cfg-options {_CLASSES}
        visualization/vis_tsne {CLS} --checkpoint WORK/run/epoch_1.pth --device cpu \
            --work-dir WORK/tsne --cfg-options {_CLASSES}
    """,
}


def main() -> None:
    """Run them all, one toolbox beside the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--into", type=Path, help="file that keeps a place for the table")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor() as pool:
        rows = [row for rows in pool.map(lambda package: list(results(package, Path(folder))), TOOLS) for row in rows]
    table = markdown_table(("toolbox", "tool", "works"), rows)
    if args.into is None:
        print(table)
    else:
        write_into(args.into, "benchmarks/toolbox_tools.py", table)


def results(package: str, folder: Path) -> Iterator[tuple[str, str, str]]:
    """Toolbox, tool and outcome of each of a toolbox's tools."""
    work = folder / package
    work.mkdir()
    for name in ("configs", "data"):  # tools run in a folder of their own, where some leave files
        (work / name).symlink_to(ROOT / name)
    for number, photo in enumerate(sorted((ROOT / "data/sample/images/training").glob("*.jpg"))):
        for split in ("train", "test"):
            link = work / "classes" / split / f"class{number % 12}" / photo.name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(photo)
    for line in TOOLS[package].strip().splitlines():
        print(package, line.split()[0], file=sys.stderr, flush=True)
        yield package, f"`{line.split()[0]}`", outcome(package, line, work)


def outcome(package: str, line: str, work: Path) -> str:
    """``yes``, or the last line of the error."""
    log = next((str(path) for path in work.glob("run/*/vis_data/scalars.json")), "no log")
    command = [sys.executable, "-m", "eyetoy_mm.cli", "tool", package]
    command += [word.replace("WORK", str(work)).replace("LOG", log) for word in line.split()]
    env = os.environ | {"MPLBACKEND": "Agg", "PYTHONWARNINGS": "ignore"}
    try:
        done = subprocess.run(command, cwd=work, env=env, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return f"no: still running after {SECONDS} s"
    if done.returncode == 0:
        return "yes"
    error = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    return f"no: `{error.replace('|', '/').replace(str(work), 'WORK')[:160]}`"


if __name__ == "__main__":
    main()
