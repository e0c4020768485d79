"""Files in packs are those of the folder, wherever a toolbox reads them, and what is broken is named."""

import gzip
import io
import os
import pickle
import re
import signal
import subprocess
import sys
import tarfile
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

import eyetoy_mm  # noqa: F401 - before the toolboxes: supplies what mmcv-lite lacks

pytest.importorskip("mmengine")

from mmengine import fileio
from mmengine.fileio import LocalBackend

from benchmarks.trust.packs import CASES
from eyetoy_mm.cli import main
from eyetoy_mm.cli.pack import size
from eyetoy_mm.datasets.pack_backend import PackBackend
from eyetoy_mm.datasets.packing import index_tars, pack_folder, verify
from eyetoy_mm.datasets.packs import Pack, PackedImages, locate
from eyetoy_mm.engine.config import load_config
from eyetoy_mm.errors import UserError
from eyetoy_mm.paths import package_file

SAMPLE = package_file("data/sample")
# Names whose order as paths is not that of their folders, long ones, and others than ASCII.
NAMES = [
    "a/x.jpg",
    "a/deep/er/y.JPG",
    "a-b/z.jpg",
    "a.jpg",
    "é/ü 1.png",
    f"long/{'n' * 200}.jpg",
    "b/empty",
    "b/c/1.txt",
]


@pytest.fixture
def folder(tmp_path) -> Path:
    for number, name in enumerate(NAMES):
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"" if name == "b/empty" else os.urandom(300 * number + 1))
    (tmp_path / "folder/.DS_Store").touch()
    return tmp_path / "folder"


def test_every_file_is_there_and_any_tar_reads_it(folder, tmp_path):
    pack = pack_folder(folder, tmp_path / "pack", shard_size=1500, jobs=2)
    assert [pack.name(index) for index in range(len(pack))] == sorted(NAMES, key=os.fsencode)
    assert len(pack.shards) > 2
    in_tars = {}
    for name, _ in pack.shards:
        with tarfile.open(tmp_path / "pack" / name) as tar:
            in_tars |= {member.name: tar.extractfile(member).read() for member in tar}
    for name in NAMES:
        content = (folder / name).read_bytes()
        assert pack.read(pack.find(name)) == fileio.get(f"pack://{tmp_path}/pack/{name}") == in_tars[name] == content
    assert pack.find("a") is None and pack.find("zzz") is None and verify(pack) == []
    again = pack_folder(folder, tmp_path / "again", shard_size=1500, jobs=1)
    for path in (tmp_path / "pack").iterdir():
        assert path.read_bytes() == (again.folder / path.name).read_bytes()


def test_the_file_client_answers_as_for_the_folder(folder, tmp_path, monkeypatch):
    pack_folder(folder, tmp_path / "pack")
    ours, local = PackBackend(), LocalBackend()
    monkeypatch.chdir(tmp_path)  # by a relative path, too
    for root in (f"pack://{tmp_path}/pack", "pack://pack/"):
        for below in ("", "/a", "/b", "/é", "/a/deep", "/none", "/a/x.jpg", "/a/../b/./empty"):
            for name in ("exists", "isdir", "isfile"):
                assert getattr(ours, name)(root + below) == getattr(local, name)(f"{folder}{below}"), (name, below)
        for settings in (
            {}, dict(list_dir=False), dict(list_file=False), dict(recursive=True), dict(list_dir=False, recursive=True),
            dict(list_dir=False, recursive=True, suffix=(".jpg", ".txt")), dict(list_dir=False, suffix=".jpg"),
        ):  # fmt: skip
            expected = sorted(local.list_dir_or_file(str(folder), **settings))
            assert sorted(ours.list_dir_or_file(root, **settings)) == expected, settings
    address = f"pack://{tmp_path}/pack/b/c/1.txt"
    with fileio.get_local_path(address) as path:
        assert Path(path).read_bytes() == fileio.get(address) and path.endswith("1.txt")
    assert not Path(path).exists()
    (folder / "b/c/1.txt").write_text("é")
    pack_folder(folder, tmp_path / "second")
    assert fileio.get_text(f"pack://{tmp_path}/second/b/c/1.txt") == "é"


@pytest.mark.parametrize("config", ["upernet_eyetoy-demo_sample", "mask-rcnn_eyetoy-demo_sample"])
def test_every_toolbox_reads_what_it_reads_from_the_folder(config, tmp_path):
    pytest.importorskip("mmdet" if "rcnn" in config else "mmseg")
    from mmengine.registry import DefaultScope
    from mmengine.runner import Runner

    from eyetoy_mm.engine.data_checks import check_data

    pack_folder(SAMPLE, tmp_path / "pack", shard_size=1 << 20)
    batches = []
    for root in (str(SAMPLE), f"pack://{tmp_path}/pack"):
        loaded = load_config(package_file(f"configs/sample/{config}.py"), data_root=root)
        check_data(loaded, "train", "val")
        loader = loaded.val_dataloader
        loader.update(num_workers=0, persistent_workers=False, batch_size=1)
        with DefaultScope.overwrite_default_scope(loaded.default_scope):
            batches.append(next(iter(Runner.build_dataloader(loader))))
    plain, packed = batches
    assert packed["data_samples"][0].img_path == f"pack://{tmp_path}/pack" + plain["data_samples"][0].img_path[
        len(str(SAMPLE)) :
    ]  # fmt: skip
    assert (packed["inputs"][0] == plain["inputs"][0]).all()
    if "rcnn" in config:
        assert (packed["data_samples"][0].gt_instances.labels == plain["data_samples"][0].gt_instances.labels).all()
    else:
        assert (packed["data_samples"][0].gt_sem_seg.data == plain["data_samples"][0].gt_sem_seg.data).all()


@pytest.fixture
def photos(tmp_path) -> Path:
    """Class folders: names whose order differs as paths; images deep and in capitals; other files."""
    photo = next((SAMPLE / "images/training").glob("*.jpg")).read_bytes()
    for name in ("cat/2.jpg", "cat/1.JPG", "cat/deep/3.jpeg", "cat-big/1.jpg", "cat-big/readme.txt", "dog/1.jpg"):
        path = tmp_path / "photos/train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo)
    pack_folder(tmp_path / "photos", tmp_path / "pack")
    return tmp_path


def test_class_folders_in_a_pack_are_not_listed_and_are_the_same(photos):
    pytest.importorskip("mmpretrain")
    from eyetoy_mm.datasets.class_folders import ClassFolders

    settings = dict(data_prefix="train", pipeline=[dict(type="LoadImageFromFile")])
    plain = ClassFolders(data_root=f"{photos}/photos", **settings)
    packed = ClassFolders(data_root=f"pack://{photos}/pack", **settings)
    assert packed.CLASSES == plain.CLASSES == ("cat", "cat-big", "dog") and len(packed) == len(plain) == 5
    images = [
        {(info["img_path"].rpartition("/train/")[2], info["gt_label"]) for info in map(dataset.get_data_info, range(5))}
        for dataset in (plain, packed)
    ]
    assert images[0] == images[1]
    assert (packed[0]["img"] == plain[0]["img"]).all() and list(packed.get_gt_labels()) == [0, 0, 0, 1, 2]
    assert isinstance(packed.data_list, PackedImages)
    assert len(pickle.dumps(packed.data_list.pack)) < 300  # what a process that is started anew is given
    assert packed.data_list[-1] == packed.data_list[4] and len(packed.data_list[1:3]) == 2
    with pytest.raises(IndexError):
        packed.data_list[5]
    few = ClassFolders(data_root=f"pack://{photos}/pack", indices=2, classes=("dog", "cat"), **settings)
    assert [few.get_data_info(index)["gt_label"] for index in range(len(few))] == [0, 1]
    with pytest.raises(UserError, match=r"the class 'fox' has no image in pack://.*/pack/train"):
        ClassFolders(data_root=f"pack://{photos}/pack", classes=("fox",), **settings)


def test_imagenet_of_mmpretrain(photos):
    pytest.importorskip("mmpretrain")
    from mmpretrain.datasets import CustomDataset

    dataset = CustomDataset(data_root=f"pack://{photos}/pack", data_prefix="train")
    assert dataset.CLASSES == ("cat", "cat-big", "dog") and len(dataset) == 5


def test_what_is_broken_is_named(folder, tmp_path):
    with pytest.raises(UserError, match=r"pack://.*/folder/a: no folder of this path is a pack"):
        fileio.get(f"pack://{folder}/a")
    with pytest.raises(UserError, match="is no pack: it has no pack.json"):
        Pack(folder)
    pack = pack_folder(folder, tmp_path / "pack", shard_size=1500)
    root = f"pack://{tmp_path}/pack"
    with pytest.raises(FileNotFoundError, match=r"no such file in the pack .*pack.*a/none.jpg"):
        fileio.get(f"{root}/a/none.jpg")
    last, first = pack.folder / pack.shards[-1][0], pack.folder / pack.shards[0][0]
    content = bytearray(first.read_bytes())
    place = content.index((folder / "a-b/z.jpg").read_bytes())
    content[place] ^= 1
    first.write_bytes(content)
    with open(last, "r+b") as file:
        file.truncate(last.stat().st_size - 700)
    with pytest.raises(OSError, match=r"its bytes in 00000.tar are not those that were packed; .*pack/a-b/z.jpg"):
        fileio.get(f"{root}/a-b/z.jpg")
    with pytest.raises(OSError, match=rf"it has \d+ bytes, and {pack.shards[-1][1]} were packed; copy it again"):
        fileio.get(f"{root}/é/ü 1.png")
    with pytest.raises(SystemExit, match=rf"error: \d of {len(NAMES)} files of .* are broken: a-b/z.jpg: its bytes"):
        main(["pack", "--verify", str(tmp_path / "pack")])
    names = np.load(pack.folder / "names.npy")
    np.save(pack.folder / "names.npy", names[:-1])
    with pytest.raises(UserError, match="the index of the pack .* is not whole"):
        Pack(pack.folder)
    (pack.folder / "names.npy").write_bytes(b"no array")
    with pytest.raises(UserError, match=r"cannot read .*names.npy"):
        Pack(pack.folder)
    (pack.folder / "pack.json").write_text('{"version": 2}')
    with pytest.raises(UserError, match="is not of a pack of version 1"):
        Pack(pack.folder)


@pytest.mark.parametrize("name", ["../secret.tar", "/etc/secret.tar", "below/secret.tar"])
def test_an_index_cannot_name_shards_outside_of_the_pack(name, folder, tmp_path):
    pack = pack_folder(folder, tmp_path / "pack")
    description = pack.folder / "pack.json"
    description.write_text(description.read_text().replace(pack.shards[0][0], name))
    with pytest.raises(UserError, match=f"names shards outside of the pack: {name}"):
        Pack(pack.folder)


def test_what_cannot_be_packed(folder, tmp_path):
    with pytest.raises(UserError, match="there is no folder"):
        pack_folder(tmp_path / "none", tmp_path / "pack")
    with pytest.raises(UserError, match="would be in the folder"):
        pack_folder(folder, folder / "pack")
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="has no files to pack"):
        pack_folder(tmp_path / "none", tmp_path / "pack")
    (tmp_path / "pack/x").touch()
    with pytest.raises(UserError, match="is not empty"):
        pack_folder(folder, tmp_path / "pack")
    (folder / "b/loop").symlink_to(folder)
    with pytest.raises(UserError, match="is a link to one that it is in"):
        pack_folder(folder, tmp_path / "loop")
    assert not (tmp_path / "loop/pack.json").exists()
    (folder / "b/loop").unlink()
    (folder / "b/itself").symlink_to("itself")
    with pytest.raises(UserError, match="cannot read .*itself: Too many levels of symbolic links"):
        pack_folder(folder, tmp_path / "itself")
    (folder / "b/itself").unlink()
    os.mkfifo(folder / "b/pipe")
    with pytest.raises(UserError, match="cannot read .*pipe: it is a device or a pipe"):
        pack_folder(folder, tmp_path / "pipe")
    with pytest.raises(SystemExit, match="takes FOLDER and OUT"):
        main(["pack", str(folder)])
    assert [size(text) for text in ("7", "2k", "4G")] == [7, 2048, 4 << 30]


def test_tars_that_are_there(folder, tmp_path):
    """A tar for each class, as ImageNet comes; names in no order."""
    tars = tmp_path / "tars"
    tars.mkdir()
    for stem, names in (("n02", ["b.JPEG", "a.JPEG"]), ("n01", ["c.JPEG"])):
        with tarfile.open(tars / f"{stem}.tar", "w") as tar:
            for name in names:
                tar.add(folder / "a/deep/er/y.JPG", name)
            tar.add(folder / ".DS_Store", "./.hidden")
    main(["pack", "--index", str(tars)])
    pack, name = locate(f"pack://{tars}/n02/a.JPEG")
    assert (len(pack), name) == (3, "n02/a.JPEG")
    assert pack.read(pack.find(name)) == (folder / "a/deep/er/y.JPG").read_bytes()
    images = PackedImages(f"pack://{tars}", ("n01", "n02"), (".jpeg",))
    assert [image["gt_label"] for image in images] == [0, 1, 1]
    with tarfile.open(tars / "more.tar", "w") as tar:
        tar.add(folder / "a.jpg", "n01/c.JPEG")
    with pytest.raises(UserError, match="these names are in the shards more than once: n01/c.JPEG"):
        index_tars(tars)
    (tars / "more.tar").write_bytes(gzip.compress((tars / "n01.tar").read_bytes()))
    with pytest.raises(UserError, match=r"cannot index .*more.tar: .*uncompressed"):
        index_tars(tars)
    with pytest.raises(UserError, match="has no files that end in .tar"):
        index_tars(folder)


LIES = {
    "a member larger than its tar file": "cat/b.jpg has 1000000000000000 bytes by its header, which goes on beyond",
    "a member of less than no bytes": "cat/a.jpg has -512 bytes by its header|cannot index",
    "a folder of less than no bytes": "cat has -1024 bytes by its header",
    "a long name without end": "cannot index .*shard.tar: .*whole, uncompressed",
    "a name that leads outside": r"names a file outside of the pack: \.\./\.\./etc/cron.d/job",
    "a name from the root": "names a file outside of the pack: /etc/passwd",
    "a link to another file": "cat/a.jpg is a link to /etc/passwd, .*--dereference",
    "a hard link": "cat/b.jpg is a link to cat/a.jpg",
    "a device": "cat/a.jpg is neither a file nor a folder",
    "a name that is there twice": "these names are in the shards more than once: cat/a.jpg",
    "a tar file cut off in a file": "cat/b.jpg has 768 bytes by its header, which goes on beyond",
    "a tar file cut off between two files": "ends without the end of a tar file: it was cut off",
    "a header that was overwritten": "shard.tar is damaged from byte 1536 on",
    "two tar files joined": "from byte 2560 on, or two tar files joined",
    "a tar file without a file": "hold no files",
    "a sparse file": "cat/a.jpg is a sparse file",
    "places of another pack": "places.npy has it beyond the shards of pack.json",
    "a shard of another pack": "its bytes in 00000.tar are not those that were packed",
    "a pack.json without shards": "pack.json does not describe a pack",
    "a pack.json with shards that are numbers": "pack.json does not describe a pack",
    "a pack.json of more files": "the index of the pack .* is not whole",
    "an index that was never written": "cannot read .*ends.npy, of the index of a pack",
}


@pytest.mark.parametrize("case", CASES)
def test_tar_files_and_packs_that_lie_are_told_in_a_line(case, tmp_path):
    try:
        told = str(CASES[case](tmp_path))
    except UserError as error:
        told = str(error)
    assert re.search(LIES[case], told) and "\n" not in told
    assert not (tmp_path / "pack.json").exists()


def test_what_other_programs_write_into_tar_files_is_indexed(tmp_path):
    """Folders, names with ``./`` and ``//``, headers for all files, long names; hidden files are left out."""
    names = ["./cat//a.jpg", "cat/./b.jpg", f"dog/{'n' * 180}.jpg", "top.jpg", "./cat/._a.jpg"]
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        with tarfile.open(tmp_path / "shard.tar", "w", format=form, pax_headers=dict(comment="x")) as tar:
            for name, kind in (
                ("./", tarfile.DIRTYPE),
                ("cat/", tarfile.DIRTYPE),
                *((x, tarfile.REGTYPE) for x in names),
            ):
                member = tarfile.TarInfo(name)
                member.type, member.size = kind, len(name) * (kind == tarfile.REGTYPE)
                tar.addfile(member, io.BytesIO(name.encode()))
        pack = index_tars(tmp_path)
        found = {pack.name(index): pack.read(index) for index in range(len(pack))}
        assert found.keys() == {"cat/a.jpg", "cat/b.jpg", names[2], "shard/top.jpg"}
        assert found["cat/a.jpg"] == b"./cat//a.jpg" and found["shard/top.jpg"] == b"top.jpg"


def read_all(address: str, times: int) -> None:
    pack, _ = locate(address)
    for index in list(range(len(pack))) * times:
        pack.read(index)  # compares with what was packed


def test_processes_that_share_open_shards_do_not_disturb_each_other(folder, tmp_path):
    """A lock or a position in a file that forks share would mix them up."""
    address = f"pack://{pack_folder(folder, tmp_path / 'pack', shard_size=1500).folder}"
    read_all(address, 1)
    processes = [get_context("fork").Process(target=read_all, args=(address, 200)) for _ in range(3)]
    for process in processes:
        process.start()
    read_all(address, 200)
    for process in processes:
        process.join(60)
        assert process.exitcode == 0


@pytest.mark.skipif(sys.platform == "win32", reason="signals are those of POSIX")
def test_a_killed_pack_is_none(folder, tmp_path):
    """Killed while its second tar file is written."""
    program = f"""
import os, pathlib, signal
from eyetoy_mm.datasets import packing

class Shards(packing._Shards):
    def add(self, name, content):
        place = super().add(name, content)
        if place[0] == 1:
            self.file and self.file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        return place

packing._Shards = Shards
packing.pack_folder(pathlib.Path({str(folder)!r}), pathlib.Path({str(tmp_path / "pack")!r}), shard_size=600)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGKILL
    assert (tmp_path / "pack/00001.tar").exists()
    with pytest.raises(UserError, match="is no pack"):
        Pack(tmp_path / "pack")
    with pytest.raises(UserError, match="is not empty.*interrupted"):
        pack_folder(folder, tmp_path / "pack")
