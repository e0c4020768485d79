"""Configs of strangers looked at: put together as mmengine does it, without running a line of them."""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path
from typing import Any

from mmengine import fileio
from mmengine.config import Config, ConfigDict

from eyetoy_mm.compat.plain_python import NotPlain, evaluate, parse
from eyetoy_mm.engine.config import find_config
from eyetoy_mm.errors import UserError

_BASE = "_base_"
# `{{_base_.model.backbone}}`, which mmengine puts in before it parses, and its other variables, which can be any text.
_BASE_VARIABLE = re.compile(r"""(?<!['"])\{\{\s*_base_\.([\w.]+)\s*\}\}(?!['"])""")
_OTHER_VARIABLE = re.compile(r"\{\{\s*(\$?\w+[\w.:/-]*)\s*\}\}")


def read_plain(path: str | Path) -> Config:
    """A config with its bases, by evaluating its plain values; see :mod:`eyetoy_mm.compat.plain_python`.

    Args:
        path: The config file, or ``eyetoy_mm::eyetoy/...`` (``mmdet::...``) for one of a package.

    Returns:
        What ``Config.fromfile`` gives.

    Raises:
        UserError: A file is missing, or cannot be read without running it; the message has its line.
    """
    path = find_config(path)
    try:
        return Config(_read(str(path), ()), filename=str(path))
    except NotPlain as error:
        raise UserError(f"{error}. It cannot be read without running it; if you trust it, --run does") from error
    except ValueError as error:
        raise UserError(str(error)) from error


def _read(path: str, children: tuple[str, ...]) -> dict[str, Any]:
    path = os.path.normpath(path)
    if path in children:
        raise UserError(f"{path} is a base of itself: {' -> '.join((*children, path))}")
    if not Path(path).is_file():
        raise UserError(f"{children[-1]} has the base {path}, which is not there")
    if not path.endswith(".py"):
        return _read_data(path, children)
    own: list[ast.stmt] = []
    base_names: list[ast.expr] = []
    for statement in _statements(path):
        match statement:
            case ast.Assign(targets=[ast.Name(id="_base_"), *_], value=value):
                base_names.append(value)
            case _:
                own.append(statement)
    bases = _bases_of(base_names, path, children)
    found = evaluate(own, path, {_BASE: bases})
    return _merged(path, {name: value for name, value in found.items() if not name.startswith("__")}, bases)


def _read_data(path: str, children: tuple[str, ...]) -> dict[str, Any]:
    """A config of JSON or YAML."""
    try:
        found = fileio.load(path)
    except Exception as error:  # whatever the two readers raise
        raise UserError(f"cannot read the config {path}: {error}") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} holds {type(found).__name__}, and a config is a dict")
    names = found.pop(_BASE, [])
    return _merged(path, found, _bases_of([ast.parse(repr(names), mode="eval").body], path, children))


def _statements(path: str) -> list[ast.stmt]:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text: {error}") from error
    text = _BASE_VARIABLE.sub(r"_base_.\1", text)
    if variable := _OTHER_VARIABLE.search(text):
        line = text.count("\n", 0, variable.start()) + 1
        raise NotPlain(f"{path}, line {line}: `{variable[0]}` is put in by mmengine before the file is parsed")
    return parse(text, path)


def _bases_of(values: list[ast.expr], path: str, children: tuple[str, ...]) -> ConfigDict:
    """The bases, put together; a key may be in one of them."""
    together = ConfigDict()
    for name in _names(values, path):
        base_path, scope = Config._get_cfg_path(name, path)
        base = _read(base_path, (*children, path))
        if twice := together.keys() & base.keys():
            raise UserError(f"{path} has several bases with {', '.join(sorted(twice))}")
        together.update(Config._dict_to_config_dict(base, scope))
    return together


def _names(values: list[ast.expr], path: str) -> list[str]:
    if not values:
        return []
    try:
        names = ast.literal_eval(values[0])
    except ValueError:
        names = None
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise NotPlain(f"{path}, line {values[0].lineno}: `{ast.unparse(values[0])}` is no name of a base, nor a list")
    return list(names)


def _merged(path: str, own: dict[str, Any], bases: ConfigDict) -> dict[str, Any]:
    Config._parse_scope(own)
    try:
        merged = Config._merge_a_into_b(own, bases)
    except (KeyError, TypeError) as error:  # mmengine's words for a dict over a list, and the like
        raise UserError(f"{path}: {error}") from error
    return {name: value for name, value in merged.items() if not name.startswith("__")}
