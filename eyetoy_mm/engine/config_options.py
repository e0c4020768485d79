"""Settings in place of a config's, as ``--cfg-options`` gives them: merged, or refused where nothing reads them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner

from eyetoy_mm.engine.config_places import did_you_mean, nearest
from eyetoy_mm.errors import UserError, first_few

_OF_RUNNER = set(inspect.signature(Runner.__init__).parameters) - {"self", "cfg"}
# Read from the whole config, by mmengine, the toolboxes and the programs here.
_OF_TOOLS = {
    *("compile", "model_wrapper_cfg", "efficient_conv_bn_eval", "activation_checkpointing", "sync_bn"),
    *("find_unused_parameters", "custom_imports", "tta_model", "tta_pipeline", "test_pipeline"),
    *("engine", "split_invariant", "on_save_error"),
}
KNOWN_SECTIONS = frozenset(_OF_RUNNER | _OF_TOOLS)
_DELETE = "_delete_"


def merge_options(config: Config, options: dict[str, Any]) -> None:
    """Set dotted keys of a config, in place.

    Args:
        config: The config.
        options: Dotted keys and values; whole numbers are places in a list, ``_delete_`` clears a dict first.

    Raises:
        UserError: Keys that lie below no dict or list, beyond the end of a list, or that nothing reads.
    """
    wrong = [message for key in options for message in _mistakes(config, key, options)]
    if wrong:
        raise UserError("\n".join(wrong))
    config.merge_from_dict(options)


def _mistakes(config: Config, key: str, options: dict[str, Any]) -> Iterator[str]:
    """What is wrong with one dotted key."""
    given = f"--cfg-options {key}={options[key]!r}"
    parts = key.split(".")
    node: Any = config
    for depth, part in enumerate(parts):
        above = ".".join(parts[:depth])
        if isinstance(node, list | tuple):
            if not part.isdigit() or int(part) >= len(node):
                extent = f"with places 0 to {len(node) - 1}" if node else "without entries"
                yield f"{given}: {above} is a list {extent}, and {part} is none of these"
                return
            node = node[int(part)]
        elif isinstance(node, dict | Config):
            if part not in node:
                yield from _new_key(given, node, above, part)
                return
            if depth == 0 and part not in KNOWN_SECTIONS:
                yield (
                    f"{given} would change nothing: {part} is a variable of the config file, which was used when the "
                    f"file was read. {_where_it_counts(part)}"
                )
                return
            node = node[part]
        elif f"{above}.{_DELETE}" in options:  # a dict takes its place
            return
        else:
            yield (
                f"{given}: {above} is {node!r}, which has no keys below it. Set {above} itself, or add "
                f"{above}.{_DELETE}=True to put a dict in its place"
            )
            return


def _new_key(given: str, node: dict, above: str, part: str) -> Iterator[str]:
    """A key that was not there: wrong where nothing reads it; the arguments of classes are checked with them."""
    if not above and part not in KNOWN_SECTIONS:
        yield f"{given}: nothing reads a section {part}{did_you_mean(part, KNOWN_SECTIONS)}"
    elif part.isdigit():
        yield f"{given}: {above} is a dict, not a list: name one of its keys, {first_few(node, 12)}"
    elif above and part != _DELETE and "type" not in node and nearest(part, node, cutoff=0.85):
        yield f"{given}: {above} has no {part}{did_you_mean(part, node)}"


def _where_it_counts(variable: str) -> str:
    if variable == "data_root":
        return "Use --data-root DIR"
    return "Set the keys that have its value (train_dataloader.dataset...., model....), or write a config that does"
