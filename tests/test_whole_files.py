"""Files are replaced whole, or stay; a process that is killed leaves the old one and what the next start removes."""

import contextlib
import errno
import multiprocessing
import os
import signal
import stat

import pytest

from eyetoy_mm.errors import report_user_errors
from eyetoy_mm.whole_files import beside, remove_temporaries, renamed_over, replacing, write_whole


def test_a_file_is_replaced_whole_or_stays(tmp_path):
    path = tmp_path / "folder/file"
    write_whole(path, b"first")
    with pytest.raises(OSError, match="full"), replacing(path) as file:
        file.write_bytes(b"sec")
        raise OSError(errno.ENOSPC, "full")
    assert path.read_bytes() == b"first" and os.listdir(path.parent) == ["file"]
    write_whole(str(path), "zweite, \u00e4")
    assert path.read_text(encoding="utf-8") == "zweite, \u00e4" and os.listdir(path.parent) == ["file"]


@pytest.mark.parametrize(("number", "fine"), [(errno.EINVAL, True), (errno.ENOTSUP, True), (errno.EIO, False)])
def test_file_systems_that_do_not_flush_folders_are_written_to(tmp_path, monkeypatch, number, fine):
    """As CIFS and some of FUSE: it ended every checkpoint of a run whose work dir is on one."""
    flush = os.fsync

    def fails_for_folders(opened):
        if stat.S_ISDIR(os.fstat(opened).st_mode):
            raise OSError(number, os.strerror(number))
        flush(opened)

    monkeypatch.setattr(os, "fsync", fails_for_folders)
    with contextlib.nullcontext() if fine else pytest.raises(OSError, match=os.strerror(number)):
        write_whole(tmp_path / "file", b"content")
    assert (tmp_path / "file").read_bytes() == b"content"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has a file that is always full")
def test_a_full_disk_is_told_with_the_file(tmp_path):
    path = tmp_path / "file"
    with pytest.raises(SystemExit, match=f"^error: {path} cannot be used: No space left on device$"):
        report_user_errors(write_to_full)(path)
    assert os.listdir(tmp_path) == []


def test_a_folder_in_the_place_of_a_file_is_told_by_its_name(tmp_path):
    (tmp_path / "file").mkdir()
    with pytest.raises(SystemExit, match=f"^error: {tmp_path}/file cannot be used: Is a directory$"):
        report_user_errors(write_whole)(tmp_path / "file", b"content")
    assert os.listdir(tmp_path) == ["file"]


def write_to_full(path):
    with replacing(path), open("/dev/full", "wb") as file:
        file.write(b"x" * 2**20)


def killed_while_it_writes(path):
    with replacing(path) as file:
        file.write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_kill_leaves_the_old_one(tmp_path):
    path = tmp_path / "file"
    write_whole(path, b"first")
    process = multiprocessing.get_context("fork").Process(target=killed_while_it_writes, args=(path,))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert path.read_bytes() == b"first" and remove_temporaries(tmp_path) == [f".file.{process.pid}.part"]
    assert os.listdir(tmp_path) == ["file"]


def test_a_folder_takes_the_place_of_another(tmp_path):
    for content in "ab":
        temporary = beside(tmp_path / "folder")
        write_whole(temporary / content, content)
        renamed_over(temporary, tmp_path / "folder")
    assert os.listdir(tmp_path) == ["folder"] and os.listdir(tmp_path / "folder") == ["b"]


def test_temporaries_are_removed_and_nothing_else(tmp_path):
    for name in (".iter_4.pth.123.part", ".mine.part", "iter_4.pth", ".lock"):
        (tmp_path / name).touch()
    (tmp_path / ".iter_8.pth.before.7.part").mkdir()
    assert remove_temporaries(tmp_path) == [".iter_4.pth.123.part", ".iter_8.pth.before.7.part"]
    assert sorted(os.listdir(tmp_path)) == [".lock", ".mine.part", "iter_4.pth"]


def killed_between_two_names(folder):
    temporary = beside(folder)
    write_whole(temporary / "file", "new")
    replace = os.replace

    def replace_and_die(old, new):
        replace(old, new)
        os.kill(os.getpid(), signal.SIGKILL)

    os.replace = replace_and_die
    renamed_over(temporary, folder)


def test_a_folder_whose_name_was_taken_gets_it_back(tmp_path):
    """Neither of the two was left of a checkpoint in pieces that was written again by a run killed just then."""
    folder = tmp_path / "iter_8"
    write_whole(folder / "file", "old")
    process = multiprocessing.get_context("fork").Process(target=killed_between_two_names, args=(folder,))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL and not folder.exists()
    assert remove_temporaries(tmp_path) == [f".iter_8.{process.pid}.part"]
    assert os.listdir(tmp_path) == ["iter_8"] and (folder / "file").read_text() == "old"
