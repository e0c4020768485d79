"""`eyetoy dry-run`: a config of each toolbox from end to end, and what it says when there is something wrong."""

from pathlib import Path

import pytest
from mmengine.config import Config

import eyetoy_mm  # noqa: F401 - before mmseg and mmdet: supplies what mmcv-lite lacks
from eyetoy_mm.engine.dry_run import STAGES, dry_run_apart, few_queries, photos_by_largest_object, shrink, use_sample

ROOT = Path(__file__).resolve().parents[2]


def test_a_config_from_end_to_end(tmp_path):  # tests/test_docs.py has one of each toolbox, on data of its own
    pytest.importorskip("mmpretrain", reason="mmpretrain is not installed")
    path = tmp_path / "config.py"
    path.write_text(f"""
_base_ = "{ROOT}/configs/eyetoy_imagenet.py"
model = dict(backbone=dict(arch=dict(type="demo")), head=dict(in_channels=192))
""")
    cells, error = dry_run_apart(path)
    assert not error and len(cells) == len(STAGES)
    assert cells[0] == "yes" and cells[1].endswith(" M") and cells[5].startswith("class ")
    assert all(float(cells[i]) > 0 for i in (2, 3))


@pytest.mark.parametrize(
    ("text", "stage", "message"),
    [
        ("model = dict(", "parses", "SyntaxError"),
        ("model = dict(backbone=dict(arch='huge'))", "parses", "unknown arch 'huge'"),
        ("model = dict(decode_head=dict(num_classes=3))", "parses", "decode_head.num_classes=3"),
        ("optim_wrapper = dict(optimizer=dict(lr=1e30))", "trains", "loss"),
    ],
)
def test_a_config_that_does_not_get_there(tmp_path, text, stage, message):
    pytest.importorskip("mmseg", reason="mmsegmentation is not installed")
    path = tmp_path / "config.py"
    path.write_text(f'_base_ = "{ROOT}/configs/sample/upernet_eyetoy-demo_ade20k-sample.py"\n{text}\n')
    cells, error = dry_run_apart(path)
    assert len(cells) == STAGES.index(stage) and error and message in error


def test_images_become_small_and_the_model_stays(tmp_path):
    pytest.importorskip("mmseg", reason="mmsegmentation is not installed")
    from eyetoy_mm.engine.config import load_config

    config = load_config(ROOT / "configs/eyetoy/upernet_eyetoy-b_8xb2-160k_ade20k-640x640.py")
    before = dict(config.model.backbone)
    shrink(config)
    assert config.model.backbone == before
    assert config.model.data_preprocessor.size == config.model.test_cfg.crop_size == (80, 80)
    assert config.model.test_cfg.stride == (53, 53)
    crop = next(step for step in config.train_dataloader.dataset.pipeline if step.type == "RandomCrop")
    assert crop.crop_size == (80, 80) and crop.cat_max_ratio == 0.75
    assert config.train_dataloader.dataset.data_root == "data/ade/ADEChallengeData2016"
    use_sample(config, tmp_path)
    assert config.train_dataloader.dataset.data_root == str(ROOT / "data/sample")


@pytest.mark.parametrize("kind", ["CityscapesDataset", "PascalVOCDataset", "LoveDADataset"])
def test_data_sets_with_names_of_their_own_read_the_sample(tmp_path, kind):
    pytest.importorskip("mmseg", reason="mmsegmentation is not installed")
    from mmseg.registry import DATASETS

    from eyetoy_mm.engine.config import load_config

    config = load_config(ROOT / "configs/sample/upernet_eyetoy-demo_ade20k-sample.py")
    for split in ("train", "val", "test"):
        config[f"{split}_dataloader"].dataset = dict(type=kind, ann_file=f"ImageSets/{split}.txt", pipeline=[])
    use_sample(config, tmp_path)
    dataset = DATASETS.build(config.train_dataloader.dataset)
    assert len(dataset) == 48
    assert all(Path(dataset.get_data_info(0)[name]).is_file() for name in ("img_path", "seg_map_path"))


def test_photos_have_the_class_of_their_largest_object():
    labels = dict(photos_by_largest_object("training"))
    assert len(labels) == 48 and set(labels.values()) == set(range(6))


@pytest.mark.parametrize(
    ("model", "changed", "queries"),
    [
        (dict(as_two_stage=True, num_queries=900), True, 50),  # DINO: the best places of the maps
        (dict(as_two_stage=True, num_queries=30), True, 30),
        (dict(as_two_stage=False, num_queries=300), False, 300),  # Deformable DETR: learned ones
        (dict(num_queries=100), False, 100),
    ],
)
def test_queries_that_are_places_become_few(model, changed, queries):
    config = Config(dict(model=model))
    assert few_queries(config) is changed
    assert config.model.num_queries == queries
