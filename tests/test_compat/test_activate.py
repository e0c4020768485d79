"""Importing eyetoy_mm: cheap, and possible without any OpenMMLab package."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from eyetoy_mm import compat
from eyetoy_mm.compat import _import_hooks

BLOCK = """
import importlib
import sys

class Blocker:
    names = {names!r}

    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in self.names:
            raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)

sys.meta_path.insert(0, Blocker())
"""

# As if not installed: what importlib.util.find_spec says is None, not an error.
HIDE = BLOCK.replace("raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)", "pass") + (
    "import importlib.util, importlib.machinery\n"
    "original = importlib.machinery.PathFinder.find_spec\n"
    "def find_spec(name, path=None, target=None):\n"
    "    return None if name.split('.')[0] in Blocker.names else original(name, path, target)\n"
    "importlib.machinery.PathFinder.find_spec = find_spec\n"
)

MM_PACKAGES = ("mmengine", "mmcv", "mmdet", "mmseg", "mmpretrain", "torchvision", "natten")


def test_import_without_any_mm_package(run_python: Callable[..., str]) -> None:
    code = HIDE.format(names=MM_PACKAGES) + (
        "import eyetoy_mm\n"
        "from eyetoy_mm.compat import _TRAPS as traps\n"
        "print([trap.needed() for trap in traps], 'torch' in sys.modules, [type(f).__name__ for f in sys.meta_path])"
    )
    needed, _, rest = run_python(code).strip().partition("]")
    assert needed == f"[{', '.join(['False'] * len(compat._TRAPS))}"
    assert rest.startswith(" False")
    assert "_StandInFinder" not in rest and "_WrappingFinder" not in rest  # not one hook where there is no trap


def test_import_of_eyetoy_imports_no_other_package(run_python: Callable[..., str]) -> None:
    code = "import sys, eyetoy_mm; print(sorted({name.split('.')[0] for name in sys.modules}))"
    imported = run_python(code)
    assert not [name for name in (*MM_PACKAGES, "torch", "numpy", "pkg_resources") if f"'{name}'" in imported]


def test_activate_twice_changes_nothing() -> None:
    compat.activate()
    finders = list(sys.meta_path)
    compat.activate()
    assert sys.meta_path == finders


def test_every_trap_says_what_where_and_when_to_delete() -> None:
    for trap in compat._TRAPS:
        assert trap.__doc__ is not None
        assert all(part in trap.__doc__ for part in ("Trap:", "What breaks", "What we do", "Delete this file"))


@pytest.mark.skipif(find_spec("mmengine") is None, reason="needs mmengine")
def test_checkpoint_loading_does_nothing_on_old_torch(run_python: Callable[..., str], tmp_path: Path) -> None:
    for version, needed in (("2.5.1", False), ("2.6.0", True), ("2.11.0+cu130", True), ("3.0.0", True)):
        metadata = tmp_path / version / f"torch-{version}.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n")
        code = "from eyetoy_mm.compat import checkpoint_loading; print(checkpoint_loading.needed())"
        assert run_python(code, tmp_path / version).strip() == str(needed)


def test_mmseg_without_its_text_packages_says_what_to_install(run_python: Callable[..., str], tmp_path: Path) -> None:
    # A package of that name with the one import that matters: the real one takes seconds.
    utils = tmp_path / "mmseg" / "utils"
    utils.mkdir(parents=True)
    (tmp_path / "mmseg" / "__init__.py").write_text("from .utils import tokenizer\n")
    (utils / "__init__.py").write_text("")
    (utils / "tokenizer.py").write_text("import ftfy\nimport regex as re\n")
    code = HIDE.format(names=("ftfy", "regex")) + (
        "import eyetoy_mm\ntry:\n    import mmseg\nexcept ModuleNotFoundError as error:\n    print(error.name, error)\n"
    )
    assert "pip install ftfy regex" in run_python(code, tmp_path)


def test_several_traps_in_one_module_are_all_defused(run_python: Callable[..., str], tmp_path: Path) -> None:
    """In the order in which they come, and each once, however often it is applied."""
    (tmp_path / "trapped.py").write_text("value = ['module']")
    code = """
from eyetoy_mm.compat._import_hooks import after_import, wrap_import
def first(module): module.value.append('first')
def second(module): module.value.append('second')
def around(execute, module):
    execute(module)
    module.value.append('around')
for _ in range(2):
    after_import('trapped', first)
    after_import('trapped', second)
    wrap_import('trapped', around)
import trapped
print(trapped.value)
"""
    assert run_python(code, tmp_path).strip() == "['module', 'first', 'second', 'around']"


def test_one_function_with_other_arguments_is_another_trap(run_python: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "trapped.py").write_text("value = []")
    code = """
from functools import partial
from eyetoy_mm.compat._import_hooks import after_import
def append(text, module): module.value.append(text)
for _ in range(2):
    after_import('trapped', partial(append, 'first'))
    after_import('trapped', partial(append, 'second'))
import trapped
print(trapped.value)
"""
    assert run_python(code, tmp_path).strip() == "['first', 'second']"


def test_several_traps_in_one_method_are_all_defused() -> None:
    """Also where one is in a base, and whatever kind of method it is."""

    class Base:
        def plain(self) -> list[str]:
            return ["base"]

        @staticmethod
        def static() -> list[str]:
            return ["base"]

        @classmethod
        def of_class(cls) -> list[str]:
            return [cls.__name__]

    class Child(Base):
        pass

    def first(original):
        return lambda *args: [*original(*args), "first"]

    def second(original):
        return lambda *args: [*original(*args), "second"]

    for _ in range(2):  # each once, however often it is applied
        for name in ("plain", "static", "of_class"):
            for wrapper in (first, second):
                _import_hooks.replace_method(Base, name, wrapper)
            _import_hooks.replace_method(Child, name, second)
    for one in (Base(), Base):
        assert one.static() == ["base", "first", "second"] and one.of_class() == ["Base", "first", "second"]
    assert Base().plain() == ["base", "first", "second"]
    assert Child().plain() == Child.static() == ["base", "first", "second", "second"]
    assert Child.of_class() == ["Child", "first", "second", "second"]
