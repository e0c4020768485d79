"""What is loaded in a run is compared with its annotation, and files that cannot be loaded are named or left out."""

import os
import pickle
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from mmcv.transforms import LoadAnnotations, LoadImageFromFile, RandomChoice
from mmcv.transforms import TestTimeAug as Augmented
from mmengine.config import Config
from mmengine.dataset import BaseDataset, Compose, RepeatDataset
from PIL import Image
from torch.utils.data import DataLoader

from eyetoy_mm.datasets.guarded_loading import GuardedLoading, guard, look_at_some, plain_datasets
from eyetoy_mm.datasets.image_files import examine_file
from eyetoy_mm.engine.hooks.images import CheckImagesHook, share_to_skip
from eyetoy_mm.engine.photo_rules import apply_image_orientation, guard_images
from eyetoy_mm.errors import UserError, report_user_errors

BOX = dict(bbox=[1, 1, 5, 5], bbox_label=0, ignore_flag=0)


class Photos(BaseDataset):
    """Photos, with boxes where sizes are given, else with masks where these are."""

    def load_data_list(self):
        return self.metainfo["photos"]


def photo(path, size=(32, 24), orientation=None) -> str:
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    Image.new("RGB", size, (200, 100, 50)).save(path, exif=exif)
    return str(path)


def boxed(path, width=32, height=24) -> dict:
    return dict(img_path=str(path), width=width, height=height, instances=[BOX])


def masked(path, mask) -> dict:
    return dict(img_path=str(path), seg_map_path=str(mask))


def mask_file(path, size=(32, 24)) -> str:
    Image.new("L", size).save(path)
    return str(path)


def dataset(photos, *steps, **settings) -> Photos:
    steps = steps or (LoadImageFromFile(), LoadAnnotations(with_bbox=False, with_label=False, with_seg=True))
    if "seg_map_path" not in photos[0]:
        steps = steps[:1]
    return Photos(metainfo=dict(photos=photos), pipeline=list(steps), **settings)


def guarded(*args, rule=None, skip=0.0, **settings) -> Photos:
    photos = dataset(*args, **settings)
    guard(photos, rule, skip)
    return photos


def test_what_fits_passes(tmp_path):
    path = photo(tmp_path / "a.jpg")
    assert guarded([boxed(path)])[0]["img"].shape == (24, 32, 3)
    assert guarded([masked(path, mask_file(tmp_path / "a.png"))])[0]["gt_seg_map"].shape == (24, 32)
    assert guarded([dict(img_path=photo(tmp_path / "b.jpg", orientation=6))])[0]["img"].shape == (32, 24, 3)


def test_a_photo_of_another_size_than_its_annotation(tmp_path):
    with pytest.raises(UserError, match="a.jpg .annotated 64 x 48, loaded 32 x 24.: the annotations are of images"):
        guarded([boxed(photo(tmp_path / "a.jpg"), 64, 48)])[0]


def test_a_mask_of_another_size_than_its_photo(tmp_path):
    entry = masked(photo(tmp_path / "a.jpg"), mask_file(tmp_path / "m.png", (64, 48)))
    with pytest.raises(UserError, match="a.jpg, .*m.png .annotated 64 x 48, loaded 32 x 24.: "):
        guarded([entry])[0]


@pytest.mark.parametrize("annotate", ["boxes", "mask"])
def test_turned_photos(tmp_path, annotate):
    def entry(size, orientation):
        path = photo(tmp_path / "a.jpg", size, orientation)
        return boxed(path, *size) if annotate == "boxes" else masked(path, mask_file(tmp_path / "m.png", size))

    for photos in ([entry((32, 24), 6)], [entry((32, 24), 8)]):
        with pytest.raises(UserError, match="orientation of photos: .*a.jpg.*Set image_orientation='stored'"):
            guarded(photos)[0]
        (finding,) = look_at_some(dataset(photos), None)
        assert finding.where == (str(tmp_path / "a.jpg"),) and "image_orientation='stored'" in finding.message
    square = [entry((32, 32), 6)]
    with pytest.raises(UserError, match="nothing says whether boxes and masks are of the turned photo"):
        guarded(square)[0]
    (finding,) = look_at_some(dataset(square), None)
    assert finding.fatal and "nothing says" in finding.message
    assert guarded(square, rule="exif")[0]["img"].shape == (32, 32, 3)
    assert not list(look_at_some(dataset(square), "exif"))


def test_a_step_that_leaves_photos_as_stored_says_so(tmp_path):
    photos = [boxed(photo(tmp_path / "a.jpg", (32, 24), 6), 32, 24)]
    stored = LoadImageFromFile(color_type="color_ignore_orientation")
    assert not list(look_at_some(dataset(photos, stored), None))
    assert guarded(photos, stored)[0]["img"].shape == (24, 32, 3)


def test_files_are_named(tmp_path):
    good, bad = photo(tmp_path / "good.jpg"), tmp_path / "bad.jpg"
    bad.write_bytes(b"")
    with pytest.raises(UserError, match="bad.jpg cannot be loaded: these files have no bytes"):
        guarded([dict(img_path=str(bad))])[0]
    with pytest.raises(UserError, match="gone.jpg cannot be loaded: there is no such file"):
        guarded([dict(img_path=str(tmp_path / "gone.jpg"))])[0]
    with pytest.raises(UserError, match="bad.jpg cannot be loaded"):
        guarded([masked(good, bad)])[0]


def test_masks_that_are_no_labels_are_named(tmp_path):
    """Where a run loads them: only some are opened before it."""
    mmseg = pytest.importorskip("mmseg.datasets.transforms", reason="mmsegmentation is not installed")
    good = photo(tmp_path / "a.jpg")
    steps = LoadImageFromFile(), mmseg.LoadAnnotations(reduce_zero_label=False)

    def loaded(numbers):
        Image.fromarray(numbers).save(tmp_path / "m.png")
        entry = masked(good, tmp_path / "m.png") | dict(reduce_zero_label=False, seg_fields=[])
        return guarded([entry], *steps)[0]["gt_seg_map"]

    wide = np.ones((24, 32), np.uint16)
    assert loaded(wide).max() == 1
    with pytest.raises(UserError, match=r"labels beyond 255: .*m.png \(257 to 257\)"):
        loaded(wide * 257)
    with pytest.raises(UserError, match=r"masks in colour: .*m.png \(3 channels\)"):
        loaded(np.zeros((24, 32, 3), np.uint8))
    assert loaded(np.zeros((24, 32), np.uint8)).shape == (24, 32)


def test_a_step_that_fails_at_the_size_of_a_mask(tmp_path):
    class Fails(LoadAnnotations):
        def _load_seg_map(self, results):
            raise ValueError("cannot reshape")

    step = Fails(with_bbox=False, with_label=False, with_seg=True)
    entry = masked(photo(tmp_path / "a.jpg"), mask_file(tmp_path / "m.png", (16, 12)))
    with pytest.raises(UserError, match="m.png .annotated 16 x 12, loaded 32 x 24."):
        guarded([entry], LoadImageFromFile(), step)[0]
    entry = masked(photo(tmp_path / "a.jpg"), mask_file(tmp_path / "m.png"))
    with pytest.raises(ValueError, match="cannot reshape") as caught:
        guarded([entry], LoadImageFromFile(), step)[0]
    if hasattr(caught.value, "add_note"):
        assert caught.value.__notes__ == [f"The file: {tmp_path}/m.png"]


def test_other_errors_stay_what_they_are(tmp_path):
    class Broken(LoadImageFromFile):
        def transform(self, results):
            raise RuntimeError("of another kind")

    with pytest.raises(RuntimeError, match="of another kind"):
        guarded([dict(img_path=photo(tmp_path / "a.jpg"))], Broken())[0]


def mixed(tmp_path, good=9, bad=1) -> list[dict]:
    paths = [photo(tmp_path / f"{i}.jpg") for i in range(good)]
    for i in range(bad):
        (tmp_path / f"bad{i}.jpg").write_bytes(b"no image")
    return [dict(img_path=str(p)) for p in (*paths, *sorted(tmp_path.glob("bad*.jpg")))]


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_files_are_left_out_and_counted_across_processes(tmp_path, workers):
    photos = guarded(mixed(tmp_path), skip=0.2)
    shapes = [batch[0]["img"].shape for batch in DataLoader(photos, collate_fn=list, num_workers=workers)]
    assert shapes == [(24, 32, 3)] * 10
    assert photos.image_log.unreadable() == [9]


def test_never_more_than_their_share(tmp_path):
    photos = guarded(mixed(tmp_path, 7, 3), skip=0.2)
    with pytest.raises(UserError, match="3 of 10 images cannot be loaded, more than skip_unreadable_images=0.2 allows"):
        [photos[i] for i in range(10)]


def test_evaluation_leaves_out_none(tmp_path):
    photos = guarded(mixed(tmp_path), skip=0.5, test_mode=True)
    with pytest.raises(UserError, match="bad0.jpg cannot be loaded"):
        photos[9]


def test_evaluation_leaves_out_none_in_any_mode(tmp_path):
    """mmseg's and mmpretrain's data sets of validation are in the mode of training: others would take their place."""
    photos = guarded(mixed(tmp_path), skip=0.5)
    assert photos[9]["img_path"] != str(tmp_path / "bad0.jpg")
    loop = SimpleNamespace(dataloader=SimpleNamespace(dataset=photos))
    CheckImagesHook(skip_unreadable=0.5).before_train(SimpleNamespace(val_loop=loop))
    with pytest.raises(UserError, match="bad0.jpg cannot be loaded: .*; an evaluation leaves none out"):
        photos[9]


@pytest.mark.parametrize(("name", "why"), [("a\0b.jpg", "null byte"), ("\ud800.jpg", "surrogates"), ("pipe", "a pipe")])
def test_names_that_no_file_can_have(tmp_path, name, why):
    os.mkfifo(tmp_path / "pipe")
    report, pixels = examine_file(str(tmp_path / name), "color", "cv2")
    assert pixels is None and why in report.faults[0].of(name) and report.faults[0].fatal


def test_a_worker_reports_in_one_line(tmp_path, capsys):
    loader = DataLoader(guarded(mixed(tmp_path, 0, 1)), num_workers=1, collate_fn=list)
    with pytest.raises(SystemExit) as stop:
        report_user_errors(lambda: list(loader))()
    assert str(stop.value).startswith(f"error: {tmp_path}/bad0.jpg cannot be loaded: ")
    assert "Traceback" not in str(stop.value)


def test_a_worker_that_is_not_guarded_names_the_file_too(tmp_path):
    loader = DataLoader(dataset(mixed(tmp_path, 0, 1)), num_workers=1, collate_fn=list)
    with pytest.raises(SystemExit, match=f"error: {tmp_path}/bad0.jpg is not an image that OpenCV can read"):
        report_user_errors(lambda: list(loader))()


def test_every_place_of_a_pipeline_is_guarded_once(tmp_path):
    seg = dict(type="LoadAnnotations", with_bbox=False, with_label=False, with_seg=True)
    tta = Augmented(transforms=[[seg]])
    choice = RandomChoice(transforms=[[LoadImageFromFile()], [LoadImageFromFile()]])
    photos = dataset([masked(photo(tmp_path / "a.jpg"), mask_file(tmp_path / "m.png"))], choice, tta)
    wrapped = RepeatDataset(photos, 2)
    assert list(plain_datasets(wrapped)) == [photos]
    for _ in range(2):
        guard(wrapped, None)
    steps = [*(s.transforms[0] for s in tta.subroutines), *(s.transforms[0] for s in choice.transforms)]
    assert all(isinstance(step, GuardedLoading) for step in steps) and len(steps) == 3
    assert not any(isinstance(step.step, GuardedLoading) for step in steps)
    assert isinstance(pickle.loads(pickle.dumps(Compose(steps))).transforms[0], GuardedLoading)
    photos.pipeline = Compose([LoadImageFromFile()])  # as hooks do that change pipelines
    guard(wrapped, None)
    assert isinstance(photos.pipeline.transforms[0], GuardedLoading)


def config(**settings) -> Config:
    step = dict(type="LoadImageFromFile")
    loader = dict(dataset=dict(type="X", pipeline=[step, dict(type="LoadAnnotations")]))
    wrapped = dict(
        dataset=dict(type="RepeatDataset", dataset=dict(pipeline=[dict(step, type="mmdet.LoadImageFromFile")]))
    )
    return Config(
        dict(
            train_dataloader=wrapped,
            test_dataloader=loader,
            test_pipeline=[dict(step, type=LoadImageFromFile)],
            tta_pipeline=[dict(step, color_type="grayscale")],
            **settings,
        )
    )  # fmt: skip


def color_types(config: Config) -> list:
    steps = [
        config.train_dataloader.dataset.dataset.pipeline[0], config.test_dataloader.dataset.pipeline[0],
        config.test_pipeline[0], config.tta_pipeline[0],
    ]  # fmt: skip
    return [step.get("color_type") for step in steps]


def test_one_key_of_a_config_turns_every_pipeline():
    stored, exif, without = config(image_orientation="stored"), config(image_orientation="exif"), config()
    for each in (stored, exif, without):
        apply_image_orientation(each)
    assert color_types(without) == [None, None, None, "grayscale"]
    assert color_types(exif) == ["color", "color", "color", "grayscale"]
    assert color_types(stored) == [*["color_ignore_orientation"] * 3, "grayscale_ignore_orientation"]
    stored.image_orientation = "exif"
    apply_image_orientation(stored)
    assert color_types(stored) == color_types(exif)


def test_rules_that_cannot_be_followed():
    with pytest.raises(UserError, match="image_orientation='left' should be"):
        apply_image_orientation(config(image_orientation="left"))
    unturned = config(image_orientation="exif")
    unturned.test_pipeline[0].color_type = "unchanged"
    with pytest.raises(UserError, match="cannot be followed by .*color_type='unchanged'"):
        apply_image_orientation(unturned)
    unturned.image_orientation = "stored"
    apply_image_orientation(unturned)
    assert unturned.test_pipeline[0].color_type == "unchanged"


def test_the_hook_is_added_once_with_the_settings_of_the_config():
    settings = config(image_orientation="stored", skip_unreadable_images=True)
    for _ in range(2):
        guard_images(settings)
    assert [dict(h) for h in settings.custom_hooks] == [
        dict(type="eyetoy_mm.CheckImagesHook", orientation="stored", skip_unreadable=True)
    ]
    hook = CheckImagesHook("stored", True)
    assert (hook.orientation, hook.skip) == ("stored", 0.1)


@pytest.mark.parametrize("setting", [1.0, 2, -0.1, "yes"])
def test_shares_that_are_none(setting):
    with pytest.raises(UserError, match="skip_unreadable_images=.* should be True, False, or the largest share"):
        share_to_skip(setting)


def test_pixels_of_both_rules(tmp_path):
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:16, :16] = 255  # stored top left; shown top right
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    corners = {}
    for rule in ("exif", "stored"):
        settings = Config(dict(image_orientation=rule, pipeline=[dict(type="LoadImageFromFile")]))
        apply_image_orientation(settings)
        step = LoadImageFromFile(color_type=settings.pipeline[0].color_type)
        image = step(dict(img_path=str(tmp_path / "a.png")))["img"]
        corners[rule] = (image[0, 0, 0], image[0, -1, 0])
    assert corners == {"exif": (0, 255), "stored": (255, 0)}
    turned = cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE)
    assert (turned[0, 0, 0], turned[0, -1, 0]) == corners["exif"]
