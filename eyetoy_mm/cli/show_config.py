"""Print a config with its bases put together, as a run gets it, without running it.

Examples::

    eyetoy show-config configs/upernet_eyetoy_ade20k.py --cfg-options train_dataloader.batch_size=4
    eyetoy show-config downloaded.py                      # of a stranger: nothing in it is executed
    eyetoy show-config mmdet::_base_/default_runtime.py --run

A config is a Python program, and every other verb runs it. This one evaluates plain values itself: constants, dicts and
lists, names set before, `_base_` and what is taken from it, arithmetic. Where a file has more than that (an import, a
call of a function) it is refused with the line and what stands there; `--run` runs it.
"""

from __future__ import annotations

import argparse

from eyetoy_mm.cli.options import add_cfg_options, add_config, cfg_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    add_config(parser)
    parser.add_argument(
        "--run", dest="trusted", action="store_true", help="run the files, as training would; only if you trust them"
    )
    add_cfg_options(parser)


def run(args: argparse.Namespace) -> None:
    """Read and print."""
    from eyetoy_mm.engine.config import find_config, read_config
    from eyetoy_mm.engine.plain_config import read_plain

    config = read_config(find_config(args.config)) if args.trusted else read_plain(args.config)
    config.merge_from_dict(cfg_options(args) or {})
    print(config.pretty_text)
