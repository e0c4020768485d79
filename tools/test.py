"""Evaluate a checkpoint on the test set of its config; mmseg, mmdet or mmpretrain.

Usage::

    python tools/test.py configs/upernet_eyetoy_ade20k.py work_dirs/upernet_eyetoy_ade20k/iter_160000.pth
"""

from __future__ import annotations

import argparse

from mmengine.hooks import PrepareTTAHook
from mmengine.runner import Runner

from eyetoy_mm.engine.checkpoint import check_exists, check_fits
from eyetoy_mm.engine.config import add_arguments, check_data, load_config_from
from eyetoy_mm.errors import UserError, report_user_errors


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="config file")
    parser.add_argument("checkpoint", help="checkpoint file")
    parser.add_argument("--tta", action="store_true", help="test-time augmentation, as tta_model and tta_pipeline say")
    parser.add_argument("--show-dir", help="folder for pictures of ground truth and prediction")
    add_arguments(parser)
    return parser.parse_args()


@report_user_errors
def main() -> None:
    """Check data and checkpoint, then evaluate."""
    args = parse_args()
    config = load_config_from(args)
    check_exists(args.checkpoint)
    check_data(config, "test")
    config.load_from = args.checkpoint
    if args.show_dir:
        config.default_hooks.visualization.draw = True
        config.visualizer.save_dir = args.show_dir
    if args.tta:
        if "tta_model" not in config or "tta_pipeline" not in config:
            raise UserError(f"{args.config} has no test-time augmentation: tta_model and tta_pipeline are missing")
        config.test_dataloader.dataset.pipeline = config.tta_pipeline
    runner = Runner.from_cfg(config)
    if args.tta:  # a hook, because the checkpoint has to be loaded before the model is wrapped
        runner.register_hook(PrepareTTAHook(config.tta_model))
    check_fits(runner.model, args.checkpoint)
    runner.test()


if __name__ == "__main__":
    main()
