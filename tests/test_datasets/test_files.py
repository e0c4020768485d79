"""Files that are looked for, and lists that are read."""

import os
from pathlib import Path

import pytest

from eyetoy_mm.datasets.files import absent, names_in, odd_line, why_not_listed


def test_what_is_no_file_is_absent(tmp_path):
    (tmp_path / "there.jpg").touch()
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "link.jpg").symlink_to("there.jpg")
    (tmp_path / "nowhere.jpg").symlink_to("gone.jpg")
    (tmp_path / "itself.jpg").symlink_to("itself.jpg")
    names = ["there.jpg", "folder.jpg", "link.jpg", "nowhere.jpg", "itself.jpg", "gone.jpg", "no/where.jpg"]
    missing = [Path(path).name for path in absent([tmp_path / name for name in names])]
    assert missing == ["folder.jpg", "nowhere.jpg", "itself.jpg", "gone.jpg", "where.jpg"]
    assert absent([f"{tmp_path}//there.jpg", f"{tmp_path}/folder.jpg/../there.jpg"]) == []
    assert names_in(tmp_path)[0] == "folder.jpg" and names_in(tmp_path / "none") == []


def test_a_link_that_leads_back_is_named(tmp_path):
    (tmp_path / "loop").symlink_to(".")
    with pytest.raises(OSError, match="symbolic links") as caught:
        os.listdir(tmp_path / "/".join(["loop"] * 50))
    assert why_not_listed(caught.value) == f"{tmp_path}/loop is a link that leads back to where it is; take it out"
    with pytest.raises(OSError, match="No such file") as caught:
        os.listdir(tmp_path / "none")
    assert why_not_listed(caught.value) == f"{tmp_path}/none cannot be read: No such file or directory"


def test_odd_lines():
    assert odd_line(["a", "b"]) is None
    assert "empty line, 2" in str(odd_line(["a", " ", "b"]))
    assert "byte order mark" in str(odd_line(["\ufeffa"]))
