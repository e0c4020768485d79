"""Run a tool of mmdet, mmseg, mmpretrain or another OpenMMLab package, beside mmcv-lite too.

Examples::

    eyetoy tool mmdet                                            # list its tools
    eyetoy tool mmdet browse_dataset CONFIG --output-dir shown --not-show
    eyetoy tool mmseg analysis_tools/get_flops eyetoy_mm::upernet_eyetoy_ade20k --shape 512
    torchrun --nproc_per_node 8 -m eyetoy_mm.cli tool mmdet train CONFIG --launcher pytorch

A tool is named by its file, or by its path below the package's `tools` where two have the same name. What follows is
the tool's own, `--help` too; `eyetoy_mm::NAME` stands for the file of a config.
"""

from __future__ import annotations

import argparse
import runpy
import sys
from importlib.util import find_spec
from pathlib import Path

from eyetoy_mm.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.add_argument("package", metavar="PACKAGE", help="mmdet, mmseg, mmpretrain, ...")
    parser.add_argument("tool", nargs="?", metavar="TOOL", help="its name (default: list them)")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="arguments of the tool")


def run(args: argparse.Namespace) -> None:
    """Run it as Python would, in this process, in which our traps are in place."""
    tools = tools_of(args.package)
    if args.tool is None:
        print("\n".join(tools))
        return
    path = find_tool(tools, args.package, args.tool)
    sys.argv = [str(path), *map(_config_file, args.arguments)]
    sys.path.insert(0, str(path.parent))  # some import a file beside them
    runpy.run_path(str(path), run_name="__main__")


def tools_of(package: str) -> dict[str, Path]:
    """The tools of a package by their path below `tools`, without ``.py``.

    Raises:
        UserError: The package is not installed, or comes without tools.
    """
    spec = find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"{package} is not an installed package; its tools cannot be run")
    here = Path(next(iter(spec.submodule_search_locations)))
    # A wheel has them in `.mim`, a checkout beside the package.
    for folder in (here / ".mim" / "tools", here.parent / "tools"):
        if folder.is_dir():
            return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.py"))}
    raise UserError(f"{package} comes without tools; looked in {here / '.mim' / 'tools'} and {here.parent / 'tools'}")


def find_tool(tools: dict[str, Path], package: str, name: str) -> Path:
    """The file of a tool. Of two with the same name the one that is less deep, or any where they are the same.

    Raises:
        UserError: There is none, or there are several.
    """
    name = name.removesuffix(".py")
    if name in tools:
        return tools[name]
    candidates = [tool for tool in tools if Path(tool).name == name]
    candidates = [tool for tool in candidates if tool.count("/") == min(tool.count("/") for tool in candidates)]
    if not candidates:
        raise UserError(f"{package} has no tool {name!r}; it has {', '.join(tools) or 'none'}")
    if len({tools[tool].read_bytes() for tool in candidates}) > 1:
        raise UserError(f"{package} has several tools {name!r}: name one of {', '.join(candidates)}")
    return tools[candidates[0]]


def _config_file(argument: str) -> str:
    if not argument.startswith("eyetoy_mm::"):
        return argument
    from eyetoy_mm.engine.config import find_config

    return str(find_config(argument))
