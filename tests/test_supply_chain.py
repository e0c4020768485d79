"""What is installed is pinned with hashes, and licences are listed; tests/test_wheel.py has the wheel."""

import re
import shutil
import subprocess
from email.message import Message
from pathlib import Path

import pytest

from benchmarks.licences import condition, licence, report

ROOT = Path(__file__).parent.parent
CONSTRAINTS = (ROOT / "requirements/constraints.txt").read_text()
LOCK = (ROOT / "requirements/lock.txt").read_text()
PIN = re.compile(r"^([\w.-]+)==([\w.+]+)", re.MULTILINE)


def test_every_package_of_the_lock_has_hashes_and_no_address():
    entries = re.split(r"\n(?=\w)", "".join(line for line in LOCK.splitlines(keepends=True) if line[0] != "#"))
    assert len(entries) > 80
    assert all(PIN.match(entry) and "--hash=sha256:" in entry for entry in entries)
    for path in (ROOT / "requirements").iterdir():
        assert not re.search(r"://|--(extra-)?index-url|--find-links|--trusted-host", path.read_text()), path


def test_the_lock_and_the_constraints_agree():
    pins = set(PIN.findall(CONSTRAINTS))
    locked = set(PIN.findall(LOCK))
    assert locked <= pins, "run `make lock`"
    left_out = {name for name, _ in pins} - {name for name, _ in locked}
    # Not locked: built from source or a tool of `make lock`; the other cv2; what NATTEN or tests of old Pythons bring.
    assert {"natten", "uv", "opencv-python"} <= left_out


def test_the_lock_has_what_setup_asks_for():
    locked = {name.lower() for name, _ in PIN.findall(LOCK)}
    text = (ROOT / "setup.py").read_text()
    for name in ("torch", "mmengine", "mmdet", "mmsegmentation", "mmpretrain", "mmcv-lite", "pytest", "onnx"):
        assert name in text and name in locked
    assert "opencv-python-headless" in locked and "opencv-python" not in locked


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_the_matrix_says_which_pythons_are_not_there():
    command = ["make", "test-matrix", "PYTHONS=python0.1 /nowhere/python3.10"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0
    assert "Python: none. Failed: none. Not installed: python0.1 /nowhere/python3.10." in done.stdout


# --- Licences -------------------------------------------------------------------------------------------------------


class Package:
    """A distribution, as importlib.metadata gives it."""

    version = "1.0"

    def __init__(self, name="a", files=(), root=Path(), **fields):
        self.metadata = Message()
        self.metadata["Name"] = name
        for field, values in fields.items():
            for value in [values] if isinstance(values, str) else values:
                self.metadata[field.replace("_", "-")] = value
        self.files, self.root = files, root

    def locate_file(self, file):
        return self.root / file


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (dict(License_Expression="MIT", License="other"), "MIT"),
        (
            dict(Classifier=["License :: OSI Approved", "License :: OSI Approved :: BSD License"], License="x"),
            "BSD License",
        ),
        (dict(License="Apache 2.0\nand its text"), "Apache 2.0"),
        (dict(License="a text " * 20), "not said"),
        (dict(), "not said"),
    ],
)
def test_what_a_package_says(fields, expected):
    assert licence(Package(**fields)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("MIT", None),
        ("LGPL-2.1-or-later", "LGPL"),
        ("GNU Lesser General Public License v3 (LGPLv3)", "LGPL"),
        ("GNU General Public License v3 (GPLv3)", "GPL"),
        ("GPL-2.0-only", "GPL"),
        ("GNU Affero General Public License v3", "AGPL"),
        ("AGPL-3.0", "AGPL"),
        ("MPL-2.0 AND MIT", "MPL"),
        ("Mozilla Public License 2.0 (MPL 2.0)", "MPL"),
        ("LicenseRef-NVIDIA-Proprietary", "NVIDIA Proprietary"),
        ("SIMPLE", None),
    ],
)
def test_what_asks_for_more(text, expected):
    assert condition(text) == expected


def test_the_report_names_them_and_what_is_packed_in(tmp_path):
    (tmp_path / "LICENSE-3RD-PARTY.txt").write_text("FFmpeg\n\n   GNU LESSER GENERAL PUBLIC LICENSE\n   Version 2.1")
    (tmp_path / "LICENSE").write_text("This licence is compatible with the GNU General Public License version 2.")
    text = report(
        [
            Package("c", License_Expression="GPL-3.0-only"),
            Package("b", License_Expression="MIT", files=["LICENSE-3RD-PARTY.txt"], root=tmp_path),
            Package("a", License_Expression="MIT", files=["LICENSE"], root=tmp_path),
            Package("eyetoy-mm", License_Expression="Apache-2.0"),
        ]
    )
    assert text.startswith("3 packages, 0 of which say nothing.\n\n**GPL**: c (GPL-3.0-only).")
    assert "The text of the **LGPL** is in these wheels, for what is packed into them: b." in text
    assert text.splitlines()[-3:] == [
        "| a | 1.0 | MIT |  |",
        "| b | 1.0 | MIT | LGPL |",
        "| c | 1.0 | GPL-3.0-only |  |",
    ]
    assert "None says" not in text


def test_the_page_has_the_versions_of_the_lock():
    rows = re.findall(r"^\| ([\w.-]+) \| ([\w.]+) \|", (ROOT / "docs/licences.md").read_text(), re.MULTILINE)
    named = {"torch", "mmengine", "mmdet", "shapely", "opencv-python-headless"}
    shown = {row for row in rows if row[0] in named}
    assert len(shown) == len(named) and shown <= set(PIN.findall(LOCK)), "run `make licences`"
