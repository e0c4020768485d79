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
import importlib
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from eyetoy_mm.errors import UserError

# What the released tools have wrong, and what runs in its place.
_MENDS = {
    ("mmdet", "dataset_converters/ade20k2coco"): (  # boxes of things: mmdet leaves out those without a width
        ("x = hor_idx[-1] - x + 1", "x = hor_idx[0]"),
    ),
    ("mmseg", "analysis_tools/confusion_matrix"): (
        ("dataset.METAINFO", "dataset.metainfo"),  # classes that the config names
        (".astype(np.uint8)", ".astype(np.int64)"),  # label * classes: more than 255 from 16 classes on
        ("gt_segm = gt_segm - 1", "res_segm = res_segm - 1"),  # of the two only what test.py saved is 1 too large
    ),
    ("mmseg", "misc/browse_dataset"): (("dataset.METAINFO", "dataset.metainfo"),),
    ("mmpretrain", "visualization/browse_dataset"): (
        ("cfg.visualizer.pop('type')", "cfg.visualizer.pop('type'), cfg.visualizer.pop('_scope_', None)"),  # of _base_
        (
            "adjust_bbox(figure, transforms.Bbox(points))",
            "adjust_bbox(figure, transforms.Bbox(points), **dict(renderer=figure.canvas.get_renderer())"
            " if 'renderer' in adjust_bbox.__code__.co_varnames else {})",  # matplotlib >= 3.11
        ),
    ),
}


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
    name = find_tool(tools, args.package, args.tool)
    path = tools[name]
    sys.argv = [str(path), *map(_config_file, args.arguments)]
    sys.path.insert(0, str(path.parent))  # some import a file beside them
    sys.path.append(str(path.parents[name.count("/") + 1]))  # and some `tools.analysis_tools....`
    if find_spec("mmengine") is not None:  # checkpoints hold some of it, which mmseg's publish_model does not import
        importlib.import_module("mmengine.logging")
    _execute(path, source_of(args.package, name, path))


def source_of(package: str, name: str, path: Path) -> str:
    """The text of a tool, with what it has wrong mended."""
    text = path.read_text(encoding="utf-8")
    for wrong, right in _MENDS.get((package, name), ()):
        text = text.replace(wrong, right)
    return text


def _execute(path: Path, text: str) -> None:
    """As ``python path`` does, whose workers and pickles look for what it defines in ``__main__``."""
    main = ModuleType("__main__")
    main.__file__ = str(path)
    sys.modules["__main__"] = main
    exec(compile(text, str(path), "exec"), vars(main))


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


def find_tool(tools: dict[str, Path], package: str, name: str) -> str:
    """The path of a tool below `tools`. Of two with one name the less deep, or any where they are the same.

    Raises:
        UserError: There is none, or there are several.
    """
    name = name.removesuffix(".py")
    if name in tools:
        return name
    candidates = [tool for tool in tools if Path(tool).name == name]
    candidates = [tool for tool in candidates if tool.count("/") == min(tool.count("/") for tool in candidates)]
    if not candidates:
        raise UserError(f"{package} has no tool {name!r}; it has {', '.join(tools) or 'none'}")
    if len({tools[tool].read_bytes() for tool in candidates}) > 1:
        raise UserError(f"{package} has several tools {name!r}: name one of {', '.join(candidates)}")
    return candidates[0]


def _config_file(argument: str) -> str:
    if not argument.startswith("eyetoy_mm::"):
        return argument
    from eyetoy_mm.engine.config import find_config

    return str(find_config(argument))
