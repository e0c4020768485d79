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
_OF_OURS = {"load_from_allow_missing", "image_orientation", "skip_unreadable_images", "on_save_error"}
KNOWN_SECTIONS = frozenset(_OF_RUNNER | _OF_TOOLS | _OF_OURS)
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
    try:
        config.merge_from_dict(options)
    except (TypeError, KeyError, AttributeError) as error:  # dicts inside of values, which it merges as well
        raise UserError(f"--cfg-options {first_few(options)}: {' '.join(str(error.args[0]).split())}") from error


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
            if depth == len(parts) - 1 and not (isinstance(node, dict) and isinstance(options[key], dict)):
                yield f"{given}: in a list only the keys of dicts are set one by one; set the whole of {above}"
        elif isinstance(node, dict | Config):
            if part not in node:
                yield from _new_key(given, node, above, part, elsewhere=part in config)
                return
            if depth == 0 and part not in KNOWN_SECTIONS:
                yield (
                    f"{given} would change nothing: {part} is a variable of the config file, which was used when the "
                    f"file was read. {_where_it_counts(part)}"
                )
                return
            if part == "custom_imports" and not above:
                yield f"{given} would change nothing: modules are imported as the file is read. Write a config with it"
                return
            node = node[part]
            if depth == len(parts) - 1:
                yield from _dict_in_place(given, key, options, node)
        elif f"{above}.{_DELETE}" in options:  # a dict takes its place
            return
        else:
            yield (
                f"{given}: {above} is {node!r}, which has no keys below it. Set {above} itself, or add "
                f"{above}.{_DELETE}=True to put a dict in its place"
            )
            return


def _dict_in_place(given: str, key: str, options: dict[str, Any], node: Any) -> Iterator[str]:
    """A dict where there is something else: mmengine would merge the one into the other."""
    value = options[key]
    if isinstance(value, dict) and not isinstance(node, dict | Config) and not value.get(_DELETE):
        is_list = isinstance(node, list | tuple)
        if is_list and all(name.isdigit() for name in value):  # some of its places
            return
        there = f"a list of {len(node)}" if is_list else repr(node)
        yield f"{given}: {key} is {there}, and a dict is merged into dicts. Add {_DELETE}=True to it to put it in place"


def _new_key(given: str, node: dict, above: str, part: str, elsewhere: bool) -> Iterator[str]:
    """A key that was not there: wrong where nothing reads it; the arguments of classes are checked with them.

    Args:
        given: The option, for the message.
        node: Where the key is set.
        above: The key of the node.
        part: The last part of the key.
        elsewhere: Whether the config has a section of that name.
    """
    if part == "data_preprocessor" and above == "model" and elsewhere:
        yield f"{given}: the model has no data_preprocessor of its own; set the section data_preprocessor"
    elif not above and part not in KNOWN_SECTIONS:
        yield f"{given}: nothing reads a section {part}{did_you_mean(part, KNOWN_SECTIONS)}"
    elif part.isdigit():
        yield f"{given}: {above} is a dict, not a list: name one of its keys, {first_few(node, 12)}"
    elif above and part != _DELETE and "type" not in node and nearest(part, node, cutoff=0.85):
        yield f"{given}: {above} has no {part}{did_you_mean(part, node)}"


def _where_it_counts(variable: str) -> str:
    if variable == "data_root":
        return "Use --data-root FOLDER"
    return "Set the keys that have its value (train_dataloader.dataset...., model....), or write a config that does"
