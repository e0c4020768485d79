"""Paint the predictions of a trained model over images: classification, detection or segmentation.

Usage::

    python tools/infer.py CONFIG CHECKPOINT photo.jpg folder/*.jpg --out painted
"""

from __future__ import annotations

import argparse
from pathlib import Path

import mmcv
from mmengine.config import DictAction

from eyetoy_mm.engine.config import load_config
from eyetoy_mm.engine.inference import open_predictor, read_image
from eyetoy_mm.errors import UserError, report_user_errors


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="config file")
    parser.add_argument("checkpoint", help="checkpoint file")
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="image files")
    parser.add_argument("--out", type=Path, required=True, help="folder for the painted images")
    parser.add_argument("--score-thr", type=float, default=0.3, help="detections with a lower score are not painted")
    parser.add_argument("--device", help="torch device (default: an accelerator if there is one)")
    parser.add_argument("--cfg-options", nargs="+", action=DictAction, help="override settings: key.of.it=value ...")
    return parser.parse_args()


@report_user_errors
def main() -> None:
    """Predict and paint one image after the other; print where each picture is."""
    args = parse_args()
    config = load_config(args.config, options=args.cfg_options)
    predictor = open_predictor(config, args.checkpoint, args.device, args.score_thr)
    taken: set[Path] = set()
    refused: list[UserError] = []  # told at the end: one bad image should not stop a long run
    for path in args.images:
        try:
            image = read_image(path)
        except UserError as error:
            refused.append(error)
            continue
        target = args.out / f"{path.stem}.png"
        while target in taken:  # images of one name from several folders
            target = target.with_stem(target.stem + "_")
        taken.add(target)
        painted = predictor.paint(image, predictor.predict(image))
        mmcv.imwrite(mmcv.rgb2bgr(painted), str(target))
        print(f"{path} -> {target}")
    if refused:
        raise UserError("; ".join(map(str, refused)))


if __name__ == "__main__":
    main()
