"""The program ``eyetoy``: a verb a module, which parses, calls and prints; nothing else imports them.

A verb's module has ``add_arguments(parser)``, ``run(args)``, and a docstring that is its help: a line that says what it
does, and an example. It imports what it needs in ``run``: help is quick, and works where OpenMMLab is not installed.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import difflib
import io
import logging
import os
import pkgutil
import shutil
import sys
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from eyetoy_mm import zoo
from eyetoy_mm.cli.options import take_checkpoint
from eyetoy_mm.compat._import_hooks import after_import
from eyetoy_mm.errors import report_user_errors
from eyetoy_mm.paths import package_file
from eyetoy_mm.version import __version__

VERBS = (
    *("init", "train", "test", "infer", "check", "dry-run", "show-config", "attention", "flops", "models", "convert"),
    *("publish", "split", "demo", "compare", "export", "benchmark", "app", "pack", "analyze-logs", "doctor", "tool"),
)
# Those whose log is what a person follows. Of the others the answer is what they print, and a log tells warnings alone,
# not the learning rate of each parameter of a model that is built to be measured.
_LOGGED = ("train", "test", "demo", "tool")

# Warnings of the toolboxes and PyTorch about their own code and defaults, in every run: no user could mend them.
_OF_THE_TOOLBOXES = (
    r"``build_loss`` would be deprecated soon",
    r"Default ``avg_non_ignore`` is False",
    r"For binary segmentation, we suggest using`out_channels = 1`",
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # of PyTorch, when it exports
    r"The draw is False, it means that the hook for visualization",
    r"Glyph \d+ .* missing from font",  # of a class named in other letters: the picture shows it
    r"Seems like `optimizer\.step\(\)` has been overridden",
)


@report_user_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Run the program.

    Args:
        argv: A verb and its arguments; those of the process when None.
    """
    if "_ARGCOMPLETE" in os.environ:
        _complete()
    if isinstance(sys.stdout, io.TextIOWrapper):  # letters that its encoding lacks are escaped: a path may have any
        sys.stdout.reconfigure(errors="backslashreplace")
    args = parse(sys.argv[1:] if argv is None else argv)
    _leave_notebook()
    after_import("pycocotools.coco", _without_prints)
    for message in _OF_THE_TOOLBOXES:
        warnings.filterwarnings("ignore", message)
    with contextlib.nullcontext() if getattr(args, "verb", "") in _LOGGED else _without_information():
        args.run(args)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read a verb and its arguments; ``run`` of what is returned takes them.

    Raises:
        UserError: No checkpoint is given where one is needed.
        SystemExit: An argument is wrong, or help was asked for.
    """
    parser = _parser(argv[0] if argv else "")
    if not argv:
        parser.print_help(sys.stderr)
        parser.exit(2)
    if argv[0] not in VERBS and not argv[0].startswith("-"):
        parser.error(f"there is no verb {argv[0]!r}{_meant(argv[0], VERBS)}; `eyetoy --help` lists them")
    args, rest = parser.parse_known_args(argv)
    if "checkpoint" in args:
        rest = take_checkpoint(args, rest)
    if rest:
        options = [option for action in args.parser._actions for option in action.option_strings]
        told = [word + (_meant(word.partition("=")[0], options) if word[:1] == "-" else "") for word in rest]
        args.parser.error(f"unrecognized arguments: {' '.join(told)}")
    return args


def _meant(word: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, names, 1)
    return f" (is it {near[0]}?)" if near else ""


def run_tool(verb: str) -> None:
    """Run a verb with the arguments of the process, as the programs in ``tools/`` do."""
    main([verb, *sys.argv[1:]])


def _parser(called: str) -> argparse.ArgumentParser:
    """The parser of all verbs; only the one that is called is imported."""
    parser = argparse.ArgumentParser(
        prog="eyetoy",
        description="EyeToy vision backbones for OpenMMLab. `eyetoy VERB --help` shows options and an example.",
    )
    parser.add_argument("--version", action="version", version=f"eyetoy-mm {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name in VERBS:
        text = _docstring(name)
        verb = verbs.add_parser(
            name,
            help=text.partition("\n")[0].rstrip("."),
            description=_wrapped(text.replace("::\n", ":\n")),  # of reStructuredText
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name == called:
            module = import_module(_module(name))
            module.add_arguments(verb)
            verb.set_defaults(run=module.run, parser=verb)
    return parser


def _wrapped(text: str) -> str:
    """A text for the width of the terminal; examples, which are indented, stay a line each."""
    width = min(120, shutil.get_terminal_size().columns - 2)
    return "\n\n".join(
        part if part.startswith(" ") else textwrap.fill(part, width, break_on_hyphens=False)
        for part in text.split("\n\n")
    )


@contextlib.contextmanager
def _without_information() -> Iterator[None]:
    """What programs log below a warning goes nowhere, mmengine's too, which need not be imported for that."""
    before = logging.root.manager.disable
    _disable_logging(logging.INFO)
    try:
        yield
    finally:
        _disable_logging(before)


def _disable_logging(level: int) -> None:
    logging.disable(level)
    if "mmengine" in sys.modules:  # its loggers remember what is enabled, and Python does not know of them
        from mmengine.logging import MMLogger

        for logger in MMLogger._instance_dict.values():
            logger.setLevel(logger.level)  # forgets


def _without_prints(module: ModuleType) -> None:
    """Four lines for each file of annotations that is opened, in the midst of a table or of JSON."""
    vars(module)["print"] = lambda *args, **kwargs: None


def _leave_notebook() -> None:
    """Draw by matplotlib's own means where a notebook of another environment has named a module that is not here."""
    backend = os.environ.get("MPLBACKEND", "")
    module = backend.removeprefix("module://").partition(".")[0]
    if backend.startswith("module://") and find_spec(module) is None:
        del os.environ["MPLBACKEND"]


def _complete() -> None:
    """Answer a shell that asks what may come next; it does where argcomplete is installed and was told of `eyetoy`."""
    import argcomplete

    words = os.environ.get("COMP_LINE", "").split()
    argcomplete.autocomplete(_parser(words[1] if len(words) > 1 else ""), default_completer=_files_and_configs)


def _files_and_configs(prefix: str, **_: object) -> list[str]:
    """Files, and the names of the package's configs."""
    from argcomplete.completers import FilesCompleter

    below = package_file("configs")
    paths = [*below.glob("*.py"), *below.glob("[!_]*/*.py")]
    names = [f"eyetoy_mm::{path.relative_to(below).with_suffix('').as_posix()}" for path in paths]
    names += zoo.names()
    return [*FilesCompleter()(prefix), *(name for name in names if name.startswith(prefix))]


def _module(verb: str) -> str:
    return f"{__name__}.{verb.replace('-', '_')}"


def _docstring(verb: str) -> str:
    """A verb's docstring, read from its file: importing each verb for one line would take long."""
    source = pkgutil.get_data(__name__, f"{verb.replace('-', '_')}.py")
    assert source is not None, f"{_module(verb)} has no source"
    return ast.get_docstring(ast.parse(source)) or ""
