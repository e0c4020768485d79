"""What `eyetoy doctor` prints."""

import json

import pytest

from eyetoy_mm.cli import main
from eyetoy_mm.engine import doctor
from eyetoy_mm.engine.doctor import Check

CHECKS = [
    Check("packages", "mmcv", "mmcv 2.1.0 and mmcv-lite 2.1.0: each brings `mmcv`", "problem", "pip uninstall both"),
    Check("storage", "disk", "1.2 GB free in /data", "note", "make room"),
    Check("storage", "open files", "1024 at most"),
]


def test_text_fits_the_terminal_and_problems_set_the_exit_code(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "examine_installation", lambda folder: CHECKS)
    monkeypatch.setenv("COLUMNS", "60")
    with pytest.raises(SystemExit) as ended:
        main(["doctor"])
    lines = capsys.readouterr().out.splitlines()
    assert ended.value.code == 1 and "! mmcv" in lines[1] and "-> pip uninstall both" in "".join(lines)
    assert max(map(len, lines)) <= 60 and any(line.startswith("1 problem (!), 1 note (?)") for line in lines)


def test_json_is_everything(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "examine_installation", lambda folder: CHECKS[1:])
    main(["doctor", "--json"])
    assert [check["name"] for check in json.loads(capsys.readouterr().out)] == ["disk", "open files"]


def test_a_narrow_terminal_has_texts_below_names_and_paths_in_one_piece(monkeypatch, capsys):
    path = "/a/folder/that/is-longer/than/the-terminal/is/wide"
    checks = [*CHECKS, Check("packages", "opencv-python-headless", f"5.0 ({path})", "note", "make room " * 6)]
    monkeypatch.setattr(doctor, "examine_installation", lambda folder: checks)
    monkeypatch.setenv("COLUMNS", "44")
    with pytest.raises(SystemExit):
        main(["doctor"])
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines if path not in line) <= 44
    at = lines.index("? opencv-python-headless")
    assert lines[at + 1 : at + 3] == ["      5.0", f"      ({path})"] and lines[at + 3].startswith("      -> make room")
