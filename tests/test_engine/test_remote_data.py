"""Data at an address, ``scheme://...``: read by mmengine's file client, never taken for a path on this disk."""

import io
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from mmengine.fileio import LocalBackend, get, register_backend
from mmengine.fileio.backends import backends, prefix_to_backends

import eyetoy_mm  # noqa: F401 - before the toolboxes: supplies what mmcv-lite lacks
from eyetoy_mm.cli import main
from eyetoy_mm.engine.checkpoint import check_exists
from eyetoy_mm.engine.config import load_config
from eyetoy_mm.engine.data_checks import check_data
from eyetoy_mm.engine.preprocessing import read_image
from eyetoy_mm.errors import UserError, report_user_errors
from eyetoy_mm.paths import is_address, join, package_file

SAMPLE = package_file("data/sample")


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """A storage of its own kind, whose files are found by its client alone: ``s3://`` as mmengine knows it."""
    root = tmp_path / "storage"
    root.mkdir()

    class Bucket(LocalBackend):
        def __init__(self, **kwargs):
            pass

        def path(self, address) -> str:
            assert str(address).startswith("s3://"), address
            return str(root / str(address).removeprefix("s3://"))

        def get(self, filepath):
            return super().get(self.path(filepath))

        def get_text(self, filepath, encoding="utf-8"):
            return super().get_text(self.path(filepath), encoding)

        def exists(self, filepath):
            return super().exists(self.path(filepath))

        def isdir(self, filepath):
            return super().isdir(self.path(filepath))

        def isfile(self, filepath):
            return super().isfile(self.path(filepath))

        def get_local_path(self, filepath):
            return super().get_local_path(self.path(filepath))

        def list_dir_or_file(self, dir_path, *args, **kwargs):
            return super().list_dir_or_file(self.path(dir_path), *args, **kwargs)

    for registry in (backends, prefix_to_backends):  # put back what was there afterwards
        for name in ("s3", "petrel"):
            if name in registry:
                monkeypatch.setitem(registry, name, registry[name])
    register_backend("petrel", Bucket, force=True, prefixes=["s3"])
    monkeypatch.setattr("mmengine.fileio.io.backend_instances", {})
    return root


def test_paths_and_addresses():
    assert is_address("s3://a") and is_address("cluster:s3://a") and not is_address("data/a:b")
    assert join("s3://a/", "b/c") == join("s3://a", "b/c") == "s3://a/b/c"
    assert join("s3://a", "") == "s3://a" and join("data", "s3://a") == "s3://a"
    assert join("s3://a", "/b/c") == "/b/c" and join("s3://a", "s3://b/c") == "s3://b/c"
    assert join("data/", "x") == "data/x" and join("data", "/x") == "/x"


@pytest.mark.parametrize("config", ["upernet_eyetoy-demo_sample", "mask-rcnn_eyetoy-demo_sample"])
def test_a_data_root_with_a_scheme_passes_and_is_loaded(bucket, config):
    pytest.importorskip("mmdet" if "rcnn" in config else "mmseg")
    from mmengine.runner import Runner

    shutil.copytree(SAMPLE, bucket / "sample")
    loaded = load_config(package_file(f"configs/sample/{config}.py"), data_root="s3://sample")
    check_data(loaded, "train", "val", "test")
    for split in ("train", "val"):
        loader = loaded[f"{split}_dataloader"]
        loader.update(num_workers=0, persistent_workers=False, batch_size=1)
        batch = next(iter(Runner.build_dataloader(loader)))
        assert batch["data_samples"][0].img_path.startswith("s3://sample/images/")
    if "rcnn" in config:
        assert loaded.val_evaluator.ann_file == "s3://sample/annotations/instances_val.json"


def test_coco_files_are_checked_there_too(bucket):
    pytest.importorskip("mmdet")
    shutil.copytree(SAMPLE, bucket / "sample")
    options = {"train_dataloader.dataset.metainfo": dict(classes=("zebra", "unicorn"))}
    path = package_file("configs/sample/mask-rcnn_eyetoy-demo_sample.py")
    with pytest.raises(UserError, match=r"s3://sample/annotations/instances_train.json \(train\) does not have all"):
        check_data(load_config(path, data_root="s3://sample", options=options), "train")
    with pytest.raises(UserError, match=r"s3://none/annotations/instances_train.json \(train\) cannot be read"):
        check_data(load_config(path, data_root="s3://none"), "train")


def test_heads_of_some_photos_are_read_there(bucket):
    """Photos whose tag contradicts the boxes are found before they are loaded; only a few are fetched for that."""
    from mmcv.transforms import LoadImageFromFile
    from mmengine.dataset import BaseDataset

    from benchmarks.trust.photos import jpeg
    from eyetoy_mm.datasets.guarded_loading import look_at_some

    (bucket / "turned.jpg").write_bytes(jpeg(orientation=6))
    box = dict(bbox=[1, 1, 5, 5], bbox_label=0)
    entries = [dict(img_path="s3://turned.jpg", width=48, height=32, instances=[box])] * 30

    class Photos(BaseDataset):
        def load_data_list(self):
            return list(entries)

    (finding,) = look_at_some(Photos(pipeline=[LoadImageFromFile()]), None)
    assert finding.where == ("s3://turned.jpg",) * 10 and "Set image_orientation='stored'" in finding.message
    entries[0]["img_path"] = "s3://none.jpg"
    assert list(look_at_some(Photos(pipeline=[LoadImageFromFile()]), None)) == []


def test_training_reads_through_the_client(bucket, tmp_path):
    pytest.importorskip("mmseg")
    shutil.copytree(SAMPLE, bucket / "sample")
    options = [
        "train_dataloader.dataset.pipeline.3.crop_size=(64,64)", "model.data_preprocessor.size=(64,64)",
        "train_dataloader.batch_size=2", "train_dataloader.num_workers=0",
        "train_dataloader.persistent_workers=False", "val_dataloader.dataset.indices=1",
        "val_dataloader.num_workers=0", "val_dataloader.persistent_workers=False",
        "train_cfg.max_iters=1", "train_cfg.val_interval=1", "custom_hooks=[]",
    ]  # fmt: skip
    config = package_file("configs/sample/upernet_eyetoy-demo_sample.py")
    main(["train", str(config), "--work-dir", str(tmp_path), "--data-root", "s3://sample", "--cfg-options", *options])
    assert (tmp_path / "iter_1.pth").is_file()


def test_class_folders_there(bucket):
    pytest.importorskip("mmpretrain")
    from eyetoy_mm.datasets.class_folders import ClassFolders

    photo = next((SAMPLE / "images/training").glob("*.jpg"))
    for name in ("cat", "dog"):
        (bucket / "photos" / name / "deep").mkdir(parents=True)
        shutil.copy(photo, bucket / "photos" / name / "deep" / "a.jpg")
        (bucket / "photos" / name / "notes.txt").touch()
    pipeline = [dict(type="LoadImageFromFile")]
    dataset = ClassFolders(data_root="s3://photos", pipeline=pipeline)
    assert dataset.CLASSES == ("cat", "dog")
    assert [x["img_path"] for x in map(dataset.get_data_info, range(2))] == [
        "s3://photos/cat/deep/a.jpg",
        "s3://photos/dog/deep/a.jpg",
    ]
    assert dataset[1]["img"].ndim == 3
    (bucket / "photos/list.txt").write_text("cat/deep/a.jpg 0\n")
    (bucket / "photos/classes.txt").write_text("cat\ndog\n")
    listed = ClassFolders(data_root="s3://photos", ann_file="list.txt", classes="classes.txt", pipeline=pipeline)
    assert len(listed) == 1 and listed.CLASSES == ("cat", "dog") and listed[0]["img"].ndim == 3


def test_cifar_there(bucket):
    pytest.importorskip("mmpretrain")
    from eyetoy_mm.datasets.cifar import CIFAR10Files

    (bucket / "cifar").mkdir()
    batch = dict(data=np.zeros((3, 3072), np.uint8), labels=[0, 1, 2])
    stream = io.BytesIO()
    pickle.dump(batch, stream, protocol=2)
    (bucket / "cifar/one").write_bytes(stream.getvalue())
    assert len(CIFAR10Files(data_root="s3://cifar", files=["one"], pipeline=[])) == 3


def test_images_and_checkpoints_there(bucket):
    photo = next((SAMPLE / "images/training").glob("*.jpg"))
    shutil.copy(photo, bucket / "photo.jpg")
    assert (read_image("s3://photo.jpg") == read_image(photo)).all()
    check_exists("s3://weights.pth")
    with pytest.raises(UserError, match="there is no image"):
        read_image(Path("nowhere.jpg"))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a half-made LmdbBackend
@pytest.mark.parametrize(
    ("read", "client"),
    [(lambda: get("s3://b/x", backend_args=dict(backend="petrel")), "petrel_client"),
     (lambda: get("x", backend_args=dict(backend="lmdb", db_path="x")), "lmdb")],
)  # fmt: skip
def test_a_client_that_is_not_installed_is_named_in_one_line(read, client, monkeypatch):
    monkeypatch.setitem(sys.modules, client, None)
    with pytest.raises(SystemExit, match=f"^error: these data are not on a disk, and {client}, with which .* install"):
        report_user_errors(read)()
