"""Learn some photos by heart with Mask R-CNN on EyeToy, from scratch: does the whole detector learn boxes and masks?

Usage::

    python benchmarks/overfit_detection.py                 # 4 of the embedded photos, 400 iterations, some minutes

The model and its settings are those of ``configs/sample/mask-rcnn_eyetoy-demo_sample.py``, without augmentation. Trains
and evaluates on the same photos, with COCO's evaluation; prints AP before and after. Exit code 1 where segm AP50 ends
below the goal.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch
from mmengine.runner import Runner

from eyetoy_mm.engine.config import load_config

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "configs" / "sample" / "mask-rcnn_eyetoy-demo_sample.py"
SAMPLE = ROOT / "data" / "sample"
GOAL = 0.5


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=4, help="photos to learn (default: 4)")
    parser.add_argument("--iterations", type=int, default=400, help="of 4 photos each (default: 400)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/overfit_detection"))
    return parser.parse_args()


def write_subset(path: Path, count: int) -> None:
    """COCO annotations of the first photos alone: the evaluation goes over every image in the file."""
    whole = json.loads((SAMPLE / "annotations" / "instances_train.json").read_text())
    images = whole["images"][:count]
    kept = {image["id"] for image in images}
    annotations = [annotation for annotation in whole["annotations"] if annotation["image_id"] in kept]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(whole | dict(images=images, annotations=annotations)))
    print(f"{len(images)} photos, {len(annotations)} objects")


def main() -> None:
    args = parse_args()
    annotations = (args.work_dir / "annotations.json").resolve()
    write_subset(annotations, args.photos)
    config = load_config(CONFIG, work_dir=str(args.work_dir))
    data = dict(data_root=str(SAMPLE), ann_file=str(annotations), data_prefix=dict(img="images/training"))
    config.val_dataloader.dataset.update(data)
    config.train_dataloader.dataset.update(data, pipeline=config.val_dataloader.dataset.pipeline)
    config.train_dataloader.sampler = dict(type="InfiniteSampler", shuffle=True)
    config.val_evaluator.ann_file = str(annotations)
    config.train_cfg = dict(type="IterBasedTrainLoop", max_iters=args.iterations, val_interval=args.iterations)
    config.param_scheduler = [
        dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=50),
        dict(type="CosineAnnealingLR", by_epoch=False, begin=50, end=args.iterations, eta_min=0.0),
    ]
    config.log_processor.by_epoch = config.default_hooks.checkpoint.by_epoch = False
    config.default_hooks.checkpoint.interval = args.iterations
    config.randomness = dict(seed=args.seed)
    config.custom_hooks = []
    runner = Runner.from_cfg(config)
    before = runner.val()
    began = time.perf_counter()
    runner.train()
    seconds = time.perf_counter() - began
    after = runner.val_loop.run()
    print(f"\n{args.iterations} iterations in {seconds:.0f} s on {torch.get_num_threads()} threads, seed {args.seed}")
    for kind in ("bbox", "segm"):
        for name in ("mAP", "mAP_50"):
            key = f"coco/{kind}_{name}"
            print(f"{kind} {name:<7} {before.get(key, 0.0):.3f} -> {after[key]:.3f}")
    if after["coco/segm_mAP_50"] < GOAL:
        sys.exit(f"segm AP50 is below {GOAL}")


if __name__ == "__main__":
    main()
