"""Turn published checkpoints of NAT, DiNAT and DiNAT_s into OpenMMLab files, and back.

Usage::

    python tools/convert_checkpoint.py nat_tiny.pth nat-tiny_in1k.pth              # a classifier, for mmpretrain
    python tools/convert_checkpoint.py maskrcnn_dinat_s_tiny.pth mask-rcnn.pth     # a detector or segmentor
    python tools/convert_checkpoint.py nat-tiny_in1k.pth again.pth --to official   # and back, value for value
    python tools/convert_checkpoint.py nat_tiny.pth nat-tiny_in1k.pth --config configs/nat/nat-tiny_8xb128_in1k.py

Prints the backbone that the weights are of; its dilations and padding are not in a file. The file must have all of that
backbone and no more; with a config, the OpenMMLab names must be all of that model, heads too. `init_cfg` of these
backbones takes both kinds of files, so this is for whole models: `load_from`, tools/test.py, tools/infer.py.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from mmengine.registry import MODELS, init_default_scope

import eyetoy_mm.backbones  # noqa: F401 - registers them; before the toolboxes: supplies what mmcv-lite lacks
from eyetoy_mm.backbones.nat_checkpoints import State, describe, fitting, read_state, split, to_official, to_openmmlab
from eyetoy_mm.compat.checkpoint_loading import CheckpointError
from eyetoy_mm.engine.checkpoint import check_exists, check_fits
from eyetoy_mm.engine.config import load_config
from eyetoy_mm.errors import UserError, report_user_errors


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="checkpoint file")
    parser.add_argument("target", type=Path, help="file to write")
    parser.add_argument("--to", choices=["openmmlab", "official"], default="openmmlab", help="names in the target")
    parser.add_argument("--config", type=Path, help="config of the model that the OpenMMLab names must fit")
    return parser.parse_args()


def check_fits_config(state: State, path: Path, name: str) -> None:
    """Check that tensors are all that the model of a config has.

    Args:
        state: Tensors with OpenMMLab's names.
        path: The config.
        name: Of the checkpoint, for messages.

    Raises:
        UserError: The config cannot be read, or tensors are missing, too many or of another shape.
    """
    config = load_config(path)
    init_default_scope(config.default_scope)
    model = MODELS.build(config.model)
    with tempfile.TemporaryDirectory() as folder:
        torch.save({"state_dict": state}, Path(folder) / name)
        check_fits(model, str(Path(folder) / name))


@report_user_errors
def main() -> None:
    """Read, check against the backbone that the weights are of, rename, write."""
    args = parse_args()
    check_exists(str(args.source))
    if args.target.exists():
        raise UserError(f"{args.target} exists already; choose another name or take it away")
    state = read_state(str(args.source))
    own, _ = split(state)
    try:
        numbers = describe(own)
    except CheckpointError as error:
        raise UserError(f"{args.source}: {error}") from error
    with torch.device("meta"):
        backbone = MODELS.build(numbers)
    fitting(backbone, own, str(args.source))
    ours = to_openmmlab(state)
    if args.config is not None:
        check_fits_config(ours, args.config, args.source.name)
    args.target.parent.mkdir(parents=True, exist_ok=True)
    torch.save(to_official(state) if args.to == "official" else {"state_dict": ours, "meta": {}}, args.target)
    print(f"{args.source} -> {args.target}: {len(state)} tensors, of the backbone")
    print(f"dict({', '.join(f'{key}={value!r}' for key, value in numbers.items())})")


if __name__ == "__main__":
    main()
