"""Plain values evaluated as Python would, and everything else refused with its line; nothing runs."""

from __future__ import annotations

import pytest

from eyetoy_mm.compat.plain_python import MAX_SIZE, NotPlain, evaluate, parse


def read(text: str) -> dict:
    return evaluate(parse(text, "config.py"), "config.py")


@pytest.mark.parametrize(
    "text",
    [
        "a = dict(x=1, **dict(y=(2.5, None)))\nb = [*a['y'], {'z': {1, 2}}]\na['x'] = b",
        "root = 'data/'\npath = root + 'x'\nname = f'{path}-{3}'\nlr = 1e-4 * 8 / 2**3\nn = -7 // 2 % 3\nok = not True",
        "a = dict(x=1)\nb = a\nb.update(y=2, **{'z': 3})\nc = a.pop('x')\nd = a.get('q', 5)\ne = (1, 2, 3)[:2]",
        "sizes = {n: dict(s=s) for n, s in (('a', 1), ('b', 2))}\nl = [(i, j) for i in range(2) for j in range(i)]",
        "a: int = 1\nx = y = [0] * 3\np, q = 1, (2,)\ndel x\nn = len(y) + sum([1, 2]) + max(1, 2) + round(2.6)",
        "l = [dict(i=i, d=d) for i, d in enumerate([3, 4])]\nd = dict(dict(a=1), b=2)\nd.clear()",
        "'''A docstring.'''\npass",
    ],
)
def test_as_python_evaluates_it(text: str) -> None:
    expected: dict = {}
    exec(text, {}, expected)
    assert read(text) == {name: value for name, value in expected.items() if not name.startswith("__")}


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("import os", "import os"),
        ("from os import system", "from os import system"),
        ("a = open('x', 'w')", "open('x', 'w')"),
        ("a = __import__('os')", "__import__('os')"),
        ("a = dict.__subclasses__()", "dict.__subclasses__()"),
        ("a = ().__class__.__base__", "().__class__.__base__"),
        ("a = dict(x=1).__class__", "dict(x=1).__class__"),
        ("a = 'x'.format(1)", "'x'.format(1)"),
        ("a = '%99999999d' % 1", "'%99999999d' % 1"),
        ("a = f'{1:999999999}'", "1:999999999"),
        ("a = f'{b!r}'", "b!r"),
        ("a = (lambda: 1)()", "(lambda: 1)()"),
        ("def f(): pass", "def f():"),
        ("class A: pass", "class A:"),
        ("for i in [1]: a = i", "for i in [1]:"),
        ("while True: pass", "while True:"),
        ("if True: a = 1", "if True:"),
        ("with open('x') as f: pass", "with open('x') as f:"),
        ("try: a = 1\nexcept: pass", "try:"),
        ("a = 1 if True else 2", "1 if True else 2"),
        ("a = [x for x in [1] if x]", "[1]"),
        ("assert True", "assert True"),
        ("a += 1", "a += 1"),
        ("dict = 1", "dict"),
        ("len = 1", "len"),
        ("a = (b := 1)", "(b := 1)"),
        ("a = unknown", "unknown"),
        ("a = dict(x=1)['y']", "KeyError: 'y'"),
        ("a = 1 / 0", "ZeroDivisionError"),
        ("a = max(1, key=print)", "max(1, key=print)"),
        ("a = sum(1)", "TypeError"),
        ("raise SystemExit", "raise SystemExit"),
        ("global a", "global a"),
        ("print(1)", "print(1)"),
    ],
)
def test_anything_else_is_refused_with_its_line(statement: str, found: str) -> None:
    with pytest.raises(NotPlain) as caught:
        read(f"first = 1\n\n{statement}\n")
    assert str(caught.value).startswith("config.py, line 3: `") and found in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "a = 9**9**9",
        "a = 10**4000\n" + "a = a * a\n" * 40,
        "a = 'x' * 10**9",
        "a = [0] * 10**9",
        "a = [1]\n" + "a = a + a\n" * 40,
        "a = [1]\n" + "a = [*a, *a]\n" * 40,
        "a = [1]\n" + "a = [a, a]\n" * 40,
        "a = 'xx'\n" + "a = f'{a}{a}'\n" * 40,
        "a = range(10**12)",
        "a = [i for i in range(1000) for j in range(1000) for k in range(1000)]",
        "a = [" * 5000,
        "a = " + "-" * 100_000 + "1",
        "a = " + "[" * 150 + "]" * 150 + "\n" + "a = [[[[[a]]]]]\n" * 3000,
        "a = 1\0",
        "a = = 1",
    ],
)
def test_what_would_fill_the_memory_or_the_stack_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="^config.py"):
        read(text)


def test_large_but_honest() -> None:
    assert len(read(f"a = [0] * {MAX_SIZE // 2}")["a"]) == MAX_SIZE // 2
    shared = read("a = [1, [2]]\nb = [a, a]\n")
    assert shared["b"][0] is not shared["b"][1] is not shared["a"]  # mmengine changes what it merges
