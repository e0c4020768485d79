"""Serve a page that shows what a model predicts on a photo, and what a clicked position attends to.

Example::

    eyetoy app CONFIG CHECKPOINT --port 7860

Needs Gradio: `pip install 'eyetoy-mm[demo]'`. The page is for this machine; `--host 0.0.0.0` serves it to its network.
"""

from __future__ import annotations

import argparse
from importlib.util import find_spec

from eyetoy_mm.cli.options import add_cfg_options, add_checkpoint, add_config, add_device, cfg_options
from eyetoy_mm.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    add_config(parser)
    add_checkpoint(parser)
    parser.add_argument(
        "--host", metavar="NAME", default="127.0.0.1", help="address to listen on (default: this machine alone)"
    )
    parser.add_argument("--port", type=int, metavar="N", default=7860, help="port to listen on (default: 7860)")
    add_device(parser)
    add_cfg_options(parser)


def run(args: argparse.Namespace) -> None:
    """Open the model, and serve until the program is ended."""
    if not 0 < args.port < 65536:
        raise UserError(f"--port must be from 1 to 65535, got {args.port}")
    if find_spec("gradio") is None:
        raise UserError("the page needs gradio, which is not installed: pip install 'eyetoy-mm[demo]'")
    from eyetoy_mm.engine.app_page import build_page
    from eyetoy_mm.engine.config import find_config, load_config
    from eyetoy_mm.engine.inference import open_predictor

    predictor = open_predictor(load_config(args.config, options=cfg_options(args)), args.checkpoint, args.device)
    page = build_page(predictor, find_config(args.config).stem)
    try:
        page.launch(server_name=args.host, server_port=args.port, share=False)
    except OSError as error:
        raise UserError(f"--port {args.port} of --host {args.host} cannot be served: {error}") from error
