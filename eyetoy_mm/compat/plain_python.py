"""Configs read without running them: assignments of plain values, evaluated here, and never by Python.

What is read: constants, lists, tuples, sets and dicts, ``dict(...)``, ``*`` and ``**`` in them, names set before,
``x.key`` and ``x[...]`` of dicts, ``get``, ``pop`` and ``update`` of dicts, arithmetic, f-strings of plain values, and
comprehensions over such values, ``del``, and a few functions of numbers and sequences (:data:`FUNCTIONS`). Everything
else is refused, with its line: imports, other calls, functions, loops, conditions. What would take all memory is
refused, too. Needs the standard library alone.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

MAX_SIZE = 1_000_000
"""Values in a config, each counted as often as it is printed, and characters of a computed text."""
_MAX_BITS = 4096  # of a computed integer
_MAX_STEPS = 100_000  # of comprehensions

_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function for function in (abs, enumerate, float, int, len, max, min, range, round, sum)
}
"""What may be called besides ``dict`` and methods of dicts."""
_SIGNS: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: operator.not_,
}


class NotPlain(ValueError):
    """A text that is more than plain values."""


def parse(text: str, filename: str) -> list[ast.stmt]:
    """The statements of a Python file.

    Raises:
        ValueError: It is no Python, or nested deeper than Python's parser goes.
    """
    try:
        return ast.parse(text, filename).body
    except SyntaxError as error:
        raise ValueError(f"{filename}, line {error.lineno}: {error.msg}") from error
    except (RecursionError, MemoryError, ValueError) as error:  # nested too deeply, null bytes
        raise ValueError(f"{filename} is no config: {error or type(error).__name__}") from error


def evaluate(statements: Sequence[ast.stmt], filename: str, names: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The names that plain assignments set.

    Args:
        statements: Of :func:`parse`.
        filename: For messages.
        names: What is set before.

    Raises:
        NotPlain: There is something else; the message has its line.
        ValueError: It is nested too deeply, or would fill the memory.
    """
    reader = _Reader(filename, {} if names is None else names)
    try:
        for statement in statements:
            reader.run(statement)
        found = {name: value for name, value in reader.names.items() if name not in reader.given}
        if expanded_size(found) > MAX_SIZE:
            raise ValueError(
                f"{filename} has more than {MAX_SIZE:,} values when written out: it is made to fill memory"
            )
        return _unshared(found)
    except RecursionError as error:
        raise ValueError(f"{filename} is nested too deeply") from error


def _unshared(value: Any) -> Any:
    """The same value with each container in one place, as mmengine has it: it changes them when it merges."""
    if isinstance(value, dict):
        copy = value.copy()
        for key, inner in value.items():
            copy[key] = _unshared(inner)
        return copy
    return type(value)(map(_unshared, value)) if isinstance(value, list | tuple) else value


def expanded_size(value: object, sizes: dict[int, int] | None = None) -> int:
    """How many values there are when each is counted wherever it is used."""
    sizes = {} if sizes is None else sizes
    if not isinstance(value, dict | list | tuple):
        return 1
    if id(value) not in sizes:
        inside = value.values() if isinstance(value, dict) else value
        sizes[id(value)] = 1 + sum(expanded_size(x, sizes) for x in inside)
    return sizes[id(value)]


class _Reader:
    """Runs assignments; one method for statements, one for expressions."""

    def __init__(self, filename: str, given: Mapping[str, Any]) -> None:
        self.filename = filename
        self.given = given
        self.names = dict(given)
        self.steps = 0  # of comprehensions

    def run(self, node: ast.stmt) -> None:
        match node:
            case ast.Expr(value=ast.Constant(value=str())) | ast.Pass():
                return  # a docstring
            case ast.Expr(value=ast.Call(func=ast.Attribute(value=owner, attr="clear"), args=[], keywords=[])):
                self.mapping(owner).clear()
            case ast.Expr(value=ast.Call(func=ast.Attribute())):
                self.value(node.value)
            case ast.Delete(targets=targets):
                for target in targets:
                    self.delete(target)
            case ast.Assign(targets=targets, value=value):
                result = self.value(value)
                for target in targets:
                    self.assign(target, result)
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                self.assign(target, self.value(value))
            case _:
                self.refuse(node)

    def assign(self, target: ast.expr, value: object) -> None:
        match target:
            case ast.Name(id=name) if name not in ("dict", *FUNCTIONS, *self.given):
                self.names[name] = value
            case ast.Tuple(elts=targets) if isinstance(value, list | tuple) and len(value) == len(targets):
                for inner, part in zip(targets, value):
                    self.assign(inner, part)
            case ast.Subscript(value=owner, slice=key):
                self.mapping(owner)[self.key(key)] = value
            case ast.Attribute(value=owner, attr=key) if not key.startswith("_"):
                self.mapping(owner)[key] = value
            case _:
                self.refuse(target)

    def delete(self, target: ast.expr) -> None:
        match target:
            case ast.Name(id=name) if name in self.names and name not in self.given:
                del self.names[name]
            case ast.Attribute(value=owner, attr=key) if not key.startswith("_"):
                self.tried(target, lambda: self.mapping(owner).pop(key))
            case ast.Subscript(value=owner, slice=node):
                self.tried(target, lambda: self.mapping(owner).pop(self.key(node)))
            case _:
                self.refuse(target)

    def value(self, node: ast.expr) -> Any:
        """The value of an expression, made of new containers."""
        match node:
            case ast.Constant():
                return node.value
            case ast.Name(id=name):
                return self.names[name] if name in self.names else self.refuse(node, "a name that is not set before")
            case ast.List(elts=items):
                return self.items(items)
            case ast.Tuple(elts=items):
                return tuple(self.items(items))
            case ast.Set(elts=items):
                return self.tried(node, lambda: set(self.items(items)))
            case ast.Dict(keys=keys, values=values):
                return self.entries(zip(keys, values))
            case ast.Call(func=ast.Name(id="dict"), args=[] | [_] as items, keywords=words):
                return self.entries([*((None, item) for item in items), *self.keywords(words)])
            case ast.Call(func=ast.Name(id=name), args=items, keywords=[]) if name in FUNCTIONS:
                return self.called(node, FUNCTIONS[name], self.items(items))
            case ast.ListComp(elt=item, generators=loops):
                return [self.value(item) for _ in self.each(loops)]
            case ast.DictComp(key=key, value=item, generators=loops):
                return {self.key(key): self.value(item) for _ in self.each(loops)}
            case ast.Call(func=ast.Attribute(value=owner, attr="get" | "pop" as name), args=items, keywords=[]):
                return self.tried(node, lambda: getattr(self.mapping(owner), name)(*self.items(items)))
            case ast.Call(func=ast.Attribute(value=owner, attr="update"), args=items, keywords=words):
                merged = self.entries([*((None, item) for item in items), *self.keywords(words)])
                return self.mapping(owner).update(merged)
            case ast.Attribute(value=owner, attr=key) if not key.startswith("_"):
                return self.tried(node, lambda: self.mapping(owner)[key])
            case ast.Subscript(value=owner, slice=key):
                return self.tried(node, lambda: self.value(owner)[self.key(key)])
            case ast.UnaryOp(op=sign, operand=operand) if type(sign) in _SIGNS:
                return self.tried(node, lambda: _SIGNS[type(sign)](self.value(operand)))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                return self.computed(node, type(op), self.value(left), self.value(right))
            case ast.JoinedStr(values=parts):
                return self.bounded(node, "".join(self.text(part) for part in parts))
            case _:
                self.refuse(node)

    def each(self, loops: Sequence[ast.comprehension]) -> Iterator[None]:
        """Set the variables of a comprehension to one value after the other."""
        if not loops:
            self.steps += 1
            yield
            return
        loop, *inner = loops
        values = self.value(loop.iter)
        if loop.ifs or loop.is_async or not isinstance(values, list | tuple | dict):
            self.refuse(loop.iter)
        before = dict(self.names)
        for value in list(values):
            self.assign(loop.target, value)
            yield from self.each(inner)
            if self.steps > _MAX_STEPS:
                self.refuse(loop.iter, "too large")
        self.names = before

    def called(self, node: ast.expr, function: Callable[..., Any], values: list[Any]) -> Any:
        result = self.tried(node, lambda: function(*values))
        self.bounded(node, result)
        return list(result) if isinstance(result, range | enumerate) else result

    def items(self, nodes: Sequence[ast.expr]) -> list[Any]:
        found: list[Any] = []
        for node in nodes:
            if isinstance(node, ast.Starred):
                inner = self.value(node.value)
                if not isinstance(inner, list | tuple):
                    self.refuse(node)
                found.extend(inner)
                self.bounded(node, found)
            else:
                found.append(self.value(node))
        return found

    def keywords(self, words: Sequence[ast.keyword]) -> list[tuple[ast.expr | None, ast.expr]]:
        return [(ast.Constant(word.arg) if word.arg else None, word.value) for word in words]

    def entries(self, pairs: Iterable[tuple[ast.expr | None, ast.expr]]) -> dict[Any, Any]:
        """A dict of pairs of expressions; with None in place of the key, the value is a dict that is spread."""
        found: dict[Any, Any] = {}
        for key, value in pairs:
            if key is None:
                found.update(self.mapping(value))
            else:
                found[self.key(key)] = self.value(value)
        return found

    def key(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Slice):
            return slice(*(part and self.value(part) for part in (node.lower, node.upper, node.step)))
        key = self.value(node)
        return key if isinstance(key, str | int | float | None) else self.refuse(node)

    def mapping(self, node: ast.expr) -> dict[Any, Any]:
        value = self.value(node)
        return value if isinstance(value, dict) else self.refuse(node, f"of type {type(value).__name__}, not a dict")

    def computed(self, node: ast.expr, op: type[ast.operator], left: Any, right: Any) -> Any:
        numbers = isinstance(left, int | float) and isinstance(right, int | float)
        if op is ast.Pow and (not numbers or _bits(left) * abs(right) > _MAX_BITS):
            self.refuse(node)
        elif op is ast.Mult and not numbers:
            times, repeated = (left, right) if isinstance(left, int) else (right, left)
            if not isinstance(times, int) or not isinstance(repeated, str | list | tuple):
                self.refuse(node)
            if times * len(repeated) > MAX_SIZE:
                self.refuse(node, "too large")
        elif op is ast.Add and not numbers:
            if type(left) is not type(right) or not isinstance(left, str | list | tuple):
                self.refuse(node)
        elif not numbers:
            self.refuse(node)
        return self.bounded(node, self.tried(node, lambda: _OPERATORS[op](left, right)))

    def text(self, node: ast.expr) -> str:
        match node:
            case ast.Constant(value=str() as text):
                return text
            case ast.FormattedValue(value=value, conversion=-1, format_spec=None):
                inner = self.value(value)
                return str(inner) if isinstance(inner, str | int | float) else self.refuse(node)
            case _:
                self.refuse(node)

    def bounded(self, node: ast.expr, value: Any) -> Any:
        if isinstance(value, int):
            large = value.bit_length() > _MAX_BITS
        else:
            large = isinstance(value, str | list | tuple | range) and len(value) > MAX_SIZE
        return self.refuse(node, "too large") if large else value

    def tried(self, node: ast.expr, compute: Callable[[], Any]) -> Any:
        try:
            return compute()
        except NotPlain:
            raise
        except (LookupError, TypeError, ArithmeticError, ValueError) as error:
            self.refuse(node, f"{type(error).__name__}: {error}")

    def refuse(self, node: ast.stmt | ast.expr, reason: str = "") -> NoReturn:
        found = ast.unparse(node).split("\n")[0]
        found = found if len(found) <= 80 else f"{found[:77]}..."
        kind = type(node).__name__
        raise NotPlain(f"{self.filename}, line {node.lineno}: `{found}` is {reason or f'no plain value ({kind})'}")


def _bits(number: float) -> int:
    return int(abs(number)).bit_length() if abs(number) < float("inf") else _MAX_BITS + 1
