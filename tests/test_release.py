"""The places that state a version agree, and what belongs in a release is there; docs/release.md says which."""

import re
from pathlib import Path

import yaml

import eyetoy_mm

ROOT = Path(__file__).parent.parent
SECTIONS = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def numbers(version):
    return tuple(int(number) for number in version.split("."))


def test_changelog_has_what_comes_and_then_versions_from_new_to_old():
    first, *released = SECTIONS
    assert first == "Unreleased"
    assert all(re.fullmatch(r"\d+\.\d+\.\d+ - \d{4}-\d\d-\d\d", section) for section in released), released
    versions = [numbers(section.split(" - ")[0]) for section in released]
    assert versions == sorted(set(versions), reverse=True)


def test_version_is_the_newest_in_the_changelog_or_on_the_way_to_the_next():
    newest = SECTIONS[1].split(" - ")[0]
    version, _, rest = eyetoy_mm.__version__.partition(".dev")
    assert (numbers(version) > numbers(newest) and rest == "0") if rest else version == newest


def test_citation_is_of_the_newest_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert f"{citation['version']} - {citation['date-released']}" == SECTIONS[1]


def test_upgrading_knows_every_minor_version():
    known = re.findall(r"^## (\d+\.\d+)\.0$", (ROOT / "UPGRADING.md").read_text(), re.MULTILINE)
    released = {".".join(section.split(".")[:2]) for section in SECTIONS[1:]}
    assert released <= set(known)


def test_types_are_part_of_the_package():
    assert Path(eyetoy_mm.__file__).with_name("py.typed").is_file()
