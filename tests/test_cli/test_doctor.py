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
