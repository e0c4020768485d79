"""The program ``eyetoy``: a verb a module, which parses, calls and prints; nothing else imports them.

A verb's module has ``add_arguments(parser)``, ``run(args)``, and a docstring that is its help: a line that says what it
does, and an example. It imports what it needs in ``run``: help is quick, and works where OpenMMLab is not installed.
"""

from __future__ import annotations

import argparse
import ast
import pkgutil
import sys
from collections.abc import Sequence
from importlib import import_module

from eyetoy_mm.errors import report_user_errors
from eyetoy_mm.version import __version__

VERBS = (
    *("train", "test", "infer", "check", "dry-run", "show-config", "attention", "flops", "convert", "split", "demo"),
    *("export", "publish", "pack", "analyze-logs", "doctor", "tool"),
)


@report_user_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Run the program.

    Args:
        argv: A verb and its arguments; those of the process when None.
    """
    argv = sys.argv[1:] if argv is None else argv
    args = _parser(argv[0] if argv else "").parse_args(argv)
    args.run(args)


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
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name == called:
            module = import_module(_module(name))
            module.add_arguments(verb)
            verb.set_defaults(run=module.run)
    return parser


def _module(verb: str) -> str:
    return f"{__name__}.{verb.replace('-', '_')}"


def _docstring(verb: str) -> str:
    """A verb's docstring, read from its file: importing each verb for one line would take long."""
    source = pkgutil.get_data(__name__, f"{verb.replace('-', '_')}.py")
    assert source is not None, f"{_module(verb)} has no source"
    return ast.get_docstring(ast.parse(source)) or ""
