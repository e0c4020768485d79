"""Pack a folder of millions of files into a few tar shards with an index, from which configs read as from the folder.

Examples::

    eyetoy pack /data/imagenet22k /packs/imagenet22k
    eyetoy train configs/upernet_eyetoy_ade20k.py --data-root pack:///packs/ADEChallengeData2016
    eyetoy pack --index /data/winter21_tars       # tar files that are there, as they are, each a class
    eyetoy pack --verify /packs/imagenet22k       # read everything: is it what was packed?

`pack://FOLDER` stands wherever a config has a folder of data: images, masks and annotations. Any image is read at once,
so that runs shuffle, resume and share the data among processes as ever (docs/scale.md).
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from eyetoy_mm.cli.options import positive
from eyetoy_mm.errors import UserError, counted, first_few
from eyetoy_mm.paths import check_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="what is packed, with everything below it")
    parser.add_argument("out", type=Path, nargs="?", metavar="OUT", help="folder of the pack; a new one")
    parser.add_argument(
        "--shard-size", type=size, default="4G", metavar="BYTES", help="bytes of a shard, as 500M or 4G (default: 4G)"
    )
    parser.add_argument(
        "--jobs", type=positive, default=8, metavar="N", help="files read at the same time (default: 8)"
    )
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--index", action="store_true", help="FOLDER has tar files: write their index beside them")
    instead.add_argument("--verify", action="store_true", help="FOLDER is a pack: read every file of it")


def run(args: argparse.Namespace) -> None:
    """Pack, index or verify; print what is there."""
    from eyetoy_mm.datasets.packing import index_tars, pack_folder, verify
    from eyetoy_mm.datasets.packs import Pack

    if (args.out is None) != (args.index or args.verify):
        raise UserError("eyetoy pack takes FOLDER and OUT; with --index or --verify FOLDER alone")
    if args.out is not None:
        check_folder("OUT", args.out)
    if args.verify:
        pack = Pack(args.folder)
        if wrong := verify(pack):
            raise UserError(f"{len(wrong)} of {len(pack)} files of {args.folder} are broken: {first_few(wrong)}")
        print(f"{len(pack)} files of {args.folder} are what was packed")
        return
    pack = index_tars(args.folder) if args.index else pack_folder(args.folder, args.out, args.shard_size, args.jobs)
    total = sum(size for _, size in pack.shards)
    print(f"{counted(len(pack), 'file')} in {counted(len(pack.shards), 'shard')}, {total / 1e6:.1f} MB")
    print(f"In the config, or with --data-root: pack://{pack.folder.resolve()}")


def size(text: str) -> int:
    """A number of bytes such as 500M, as the ``type`` of an option."""
    found = re.fullmatch(r"([1-9]\d*)([KMGT]?)", text.upper())
    if found is None:
        raise argparse.ArgumentTypeError(f"must be a number of bytes, as 500M or 4G, got {text!r}")
    return int(found[1]) << 10 * " KMGT".index(found[2] or " ")
