"""The documentation site: every page has its place in it, and every module its place in the reference."""

import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from setuptools import find_packages

from docs.scripts import site
from eyetoy_mm.ops import neighborhood_attention

ROOT = Path(__file__).parents[1]


class Settings(yaml.SafeLoader):
    """Reads mkdocs.yml; the Python objects that it names are none of the tests' concern."""


Settings.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)
SETTINGS = yaml.load((ROOT / "mkdocs.yml").read_text(), Settings)


def leaves(nav):
    for entry in nav:
        for where in entry.values():
            yield from [where] if isinstance(where, str) else leaves(where)


def test_the_navigation_has_each_page_once():
    listed = list(leaves(SETTINGS["nav"]))
    assert sorted(listed) == sorted(site.pages())
    assert {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")} <= set(listed)


def test_the_reference_has_every_public_module():
    packages = [package for package in find_packages(ROOT, include=["eyetoy_mm", "eyetoy_mm.*"]) if "._" not in package]
    inside = [(p, found.name) for p in packages for found in pkgutil.iter_modules([ROOT / p.replace(".", "/")])]
    public = {*packages, *(f"{package}.{name}" for package, name in inside if not name.startswith("_"))}
    listed = [module for modules in site.references().values() for module in modules]
    assert len(listed) == len(set(listed)) and public == set(listed)


def test_links_are_found_with_their_files(tmp_path, monkeypatch):
    (tmp_path / "docs").mkdir()
    (tmp_path / "a b.png").touch()
    (tmp_path / "docs/page.md").write_text("[x](../a%20b.png) ![y](page.md#part) [z](https://host/page.md) [w](#part)")
    monkeypatch.setattr(site, "ROOT", tmp_path)
    assert site.links("docs/page.md") == ["a b.png", "docs/page.md"]


def test_what_is_said_of_this_program_beside_others_is_run_by_a_test():
    _, _, *rows = re.findall(r"^\|.*\|$", (ROOT / "docs/comparison.md").read_text(), re.MULTILINE)
    told = {row.split("|")[1].strip(): re.findall(r"`(tests/[\w/]+\.py)`", row.split("|")[2]) for row in rows}
    assert [feature for feature, tests in told.items() if not tests] == ["licence", "weights of the model", "tasks"]
    assert all((ROOT / test).is_file() for tests in told.values() for test in tests)


def test_requirements_are_those_of_the_extra():
    wanted = re.search(r"^DOCS_PACKAGES = (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    extra = re.search(r'"docs": \[(.+)\]', (ROOT / "setup.py").read_text())[1]
    assert re.findall(r"[\w\[\]-]+", wanted) == re.findall(r'"(.+?)"', extra)


@pytest.mark.skipif("EYETOY_LONG_TESTS" not in os.environ, reason="make docs builds it: EYETOY_LONG_TESTS=1 does, too")
def test_it_builds_without_a_warning(tmp_path):
    for package in ("material", "mkdocstrings", "latex2mathml"):
        pytest.importorskip(package, reason="pip install 'eyetoy-mm[docs]'")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path]
    subprocess.run(build, cwd=ROOT, check=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, timeout=250)
    reference = (tmp_path / "reference/ops.html").read_text()
    assert neighborhood_attention.__doc__.split("\n")[0] in reference
    assert "<math" in (tmp_path / "docs/architecture.html").read_text()
