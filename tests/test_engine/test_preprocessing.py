"""One preprocessing: what the test loop measures is what every tool and inference function predicts."""

import pickle
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import TRANSFORMS, BaseTransform
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope

from eyetoy_mm.engine.attention_picture import picture_attention
from eyetoy_mm.engine.config import load_config
from eyetoy_mm.engine.inference import open_predictor
from eyetoy_mm.engine.launch import evaluate
from eyetoy_mm.engine.preprocessing import Preprocessing, read_image, unify_preprocessing
from eyetoy_mm.errors import UserError
from tests.toolbox_runs import PACK as PACK_OF
from tests.toolbox_runs import PHOTOS, TOOLBOXES, own_mmengine, write_checkpoint, write_config

PHOTO = str(PHOTOS[0])
SMALL = dict(type="Resize", scale=(64, 48))


def change_loader_alone(config: Config) -> None:
    """Another size and decoder in the test data loader, and a data preprocessor at the top of the config alone."""
    pipeline = config.test_dataloader.dataset.pipeline
    pipeline[0] = dict(type="LoadImageFromFile", imdecode_backend="pillow")
    pipeline[1] = SMALL
    if "data_preprocessor" in config.model:
        config.data_preprocessor = config.model.pop("data_preprocessor")


def change_test_pipeline_alone(config: Config) -> None:
    config.test_pipeline[1] = SMALL


def measured(config: Path, checkpoint: Path) -> torch.Tensor:
    """What the test loop predicts for the first photo."""
    out = config.with_suffix(".pkl")
    loaded = load_config(config, work_dir=str(config.parent / "work"))
    loaded.test_dataloader.batch_size = 1
    loaded.test_dataloader.dataset.indices = 1
    loaded.test_evaluator = [loaded.test_evaluator, dict(type="DumpResults", out_file_path=str(out))]
    if loaded.default_scope == "mmpretrain":
        loaded.test_dataloader.dataset.data_prefix = "images/validation"
        loaded.test_dataloader.dataset.with_label = False
        loaded.test_evaluator = loaded.test_evaluator[1:]
    evaluate(loaded, str(checkpoint))
    with open(out, "rb") as file:
        return numbers(pickle.load(file)[0])


def numbers(sample) -> torch.Tensor:
    """What is real in a prediction, in one tensor; labels of untrained models may all be the same."""
    sample = sample if isinstance(sample, dict) else sample.to_dict()
    if "seg_logits" in sample:
        return sample["seg_logits"]["data"]
    if "pred_instances" in sample:
        found = sample["pred_instances"]
        return torch.cat([found["bboxes"], found["scores"][:, None]], dim=1)
    return sample["pred_score"]


def inferred(toolbox: str, config: str, checkpoint: str) -> dict[str, torch.Tensor]:
    """What our predictor and the toolbox' own functions predict."""
    predictor = open_predictor(load_config(config), checkpoint, "cpu")
    found = {"eyetoy infer": numbers(predictor.predict(predictor.read(PHOTO)))}
    if toolbox == "mmseg":
        from mmseg.apis import MMSegInferencer, inference_model, init_model

        found["inference_model"] = numbers(inference_model(init_model(config, checkpoint, device="cpu"), PHOTO))
        inferencer = MMSegInferencer(config, checkpoint, device="cpu")
        found["MMSegInferencer"] = numbers(inferencer(PHOTO, return_datasamples=True))
    elif toolbox == "mmdet":
        from mmdet.apis import DetInferencer, inference_detector, init_detector

        model = init_detector(config, checkpoint, device="cpu")
        found["inference_detector"] = numbers(inference_detector(model, PHOTO))
        inferencer = DetInferencer(config, checkpoint, device="cpu", show_progress=False)
        found["DetInferencer"] = numbers(inferencer(PHOTO, return_datasamples=True)["predictions"][0])
    else:
        from mmpretrain import ImageClassificationInferencer

        inferencer = ImageClassificationInferencer(config, pretrained=checkpoint, device="cpu")
        found["ImageClassificationInferencer"] = numbers(inferencer(PHOTO, return_datasamples=True)[0])
    return found


@pytest.mark.parametrize("toolbox", TOOLBOXES)
def test_what_is_measured_is_what_is_inferred(toolbox, tmp_path):
    """Also where a config changes one of the places alone that say how images are prepared."""
    pytest.importorskip(toolbox)
    path = write_config(tmp_path, toolbox)
    checkpoint = write_checkpoint(path)
    results = []
    for change in (change_loader_alone, change_test_pipeline_alone):
        config = Config.fromfile(path)
        change(config)
        changed = tmp_path / f"{change.__name__}.py"
        config.dump(changed)
        with own_mmengine(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = measured(changed, checkpoint)
            for name, result in inferred(toolbox, str(changed), str(checkpoint)).items():
                torch.testing.assert_close(result, expected, msg=f"{name} after {change.__name__}")
        results.append(expected)
    assert results[0].shape != results[1].shape or not torch.allclose(*results, atol=1e-4)


@pytest.mark.parametrize("toolbox", TOOLBOXES)
@pytest.mark.parametrize(("channels", "color_type"), [(1, "grayscale"), (4, "unchanged")])
def test_models_of_other_channels_infer_and_show_their_attention(toolbox, channels, color_type, tmp_path):
    pytest.importorskip(toolbox)
    kind = dict(mmseg="SegDataPreProcessor", mmdet="DetDataPreprocessor", mmpretrain="ClsDataPreprocessor")[toolbox]
    size = dict(size=(64, 96)) if toolbox == "mmseg" else {}
    extra = f"""
load["color_type"] = "{color_type}"
model.setdefault("backbone", dict(arch="demo"))["in_channels"] = {channels}
model["data_preprocessor"] = dict(_delete_=True, type="{kind}", **{size})
data_preprocessor = None
"""
    extra = extra if toolbox == "mmdet" else extra.replace("_delete_=True, ", "")
    config = write_config(tmp_path, toolbox, extra)
    photo = tmp_path / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, channels), dtype=np.uint8)
    cv2.imwrite(str(photo), pixels)
    with own_mmengine():
        predictor = open_predictor(load_config(config), str(write_checkpoint(config)), "cpu", score_threshold=0)
        image = predictor.read(photo)
        np.testing.assert_array_equal(image.reshape(pixels.shape), pixels)
        painted = predictor.paint(image, predictor.predict(image))
        figure = picture_attention(predictor, image, (30, 20))
    assert painted.shape == (40, 60, 3) and (painted[..., ::-1] != np.broadcast_to(pixels[..., :3], (40, 60, 3))).any()
    assert len(figure.axes) == 8


def remarks(config: dict, caplog) -> str:
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    try:
        unify_preprocessing(Config(config))
    finally:
        logger.removeHandler(caplog.handler)
    return caplog.text


LOAD, PACK = dict(type="LoadImageFromFile"), dict(type="PackSegInputs")
IMAGENET = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
NORMALIZE = dict(type="Normalize", **IMAGENET, to_rgb=True)


def loaders(train: list[dict], test: list[dict]) -> dict:
    splits = dict(train=train, test=test)
    return {f"{split}_dataloader": dict(dataset=dict(type="X", pipeline=steps)) for split, steps in splits.items()}


@pytest.mark.parametrize(
    ("config", "remark"),
    [
        (dict(test_pipeline=[LOAD, SMALL, PACK]), "test_pipeline of the config is not the pipeline of its test data"),
        (dict(test_pipeline=[LOAD, PACK]), ""),
        (
            dict(data_preprocessor=dict(mean=[1.0]), model=dict(data_preprocessor=dict(mean=[2.0], size=(8, 8)))),
            "the model takes mean=[2.0] and not [1.0]",
        ),
        (dict(data_preprocessor=dict(mean=[1.0]), model=dict(data_preprocessor=dict(mean=[1.0], size=8))), ""),
        (dict(data_preprocessor=dict(mean=[1.0]), model=dict()), ""),
        (dict(data_preprocessor=IMAGENET), "in the order red, green, blue, but images arrive there in the other order"),
        (dict(data_preprocessor=dict(IMAGENET, bgr_to_rgb=True)), ""),
        (dict(data_preprocessor=dict(IMAGENET, to_rgb=True)), ""),
        (
            dict(model=dict(data_preprocessor=dict(mean=IMAGENET["mean"][::-1], bgr_to_rgb=True))),
            "in the order blue, green, red, but images arrive there in the other order: do not swap channels",
        ),
        (dict(model=dict(data_preprocessor=dict(mean=IMAGENET["mean"][::-1]))), ""),
    ],
)
def test_places_that_say_otherwise_are_told(config, remark, caplog):
    text = remarks(loaders([LOAD, PACK], [LOAD, PACK]) | config, caplog)
    assert remark in text if remark else not text


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            loaders([LOAD, NORMALIZE], [LOAD]),
            r"Normalize is {'mean': .*} in the training pipeline and None in that of test",
        ),
        (
            loaders([dict(LOAD, color_type="grayscale")], [LOAD]),
            "color_type of LoadImageFromFile is 'grayscale' in the training pipeline and 'color' in that of test",
        ),
        (
            loaders([LOAD], [LOAD]) | dict(model=dict(backbone=dict(in_channels=1))),
            "in_channels=1, but LoadImageFromFile of the train pipeline gives 3 with color_type='color'",
        ),
    ],
)
def test_splits_that_a_model_sees_differently_are_refused(config, message):
    with pytest.raises(UserError, match=message):
        unify_preprocessing(Config(config))


def augmented(*steps: dict) -> list[dict]:
    return [LOAD, dict(type="TestTimeAug", transforms=[[SMALL, dict(SMALL)], list(steps), [PACK]])]


def test_normalisation_within_test_time_augmentation_counts():
    unify_preprocessing(Config(loaders([LOAD, NORMALIZE], augmented(NORMALIZE))))
    config = loaders([LOAD, NORMALIZE], [LOAD, NORMALIZE])
    unify_preprocessing(Config(config | dict(tta_pipeline=augmented(NORMALIZE))))
    with pytest.raises(UserError, match="Normalize is .* and None in that of test-time augmentation"):
        unify_preprocessing(Config(config | dict(tta_pipeline=augmented())))


@pytest.mark.parametrize("wrapper", [dict(type="ConcatDataset", datasets=[]), dict(type="RepeatDataset", times=1)])
@pytest.mark.parametrize("toolbox", TOOLBOXES)
def test_inferencers_find_the_pipeline_of_a_dataset_in_a_wrapper(toolbox, wrapper):
    apis = pytest.importorskip(f"{toolbox}.apis")
    name = dict(mmseg="MMSegInferencer", mmdet="DetInferencer", mmpretrain="ImageClassificationInferencer")[toolbox]
    inner = dict(type="X", pipeline=[LOAD, SMALL, dict(type=PACK_OF[toolbox])])
    inside = dict(datasets=[inner]) if "datasets" in wrapper else dict(dataset=inner)
    config = Config(dict(test_dataloader=dict(dataset=wrapper | inside)))
    before = config.pretty_text
    with own_mmengine():
        init_default_scope(toolbox)
        inferencer = object.__new__(getattr(apis, name))
        steps = inferencer._init_pipeline(config).transforms
    assert "Resize" in [type(step).__name__ for step in steps] and config.pretty_text == before


def test_a_users_own_loader_loads():
    config = dict(
        test_dataloader=dict(dataset=dict(type="X", pipeline=[dict(type="LoadBands"), dict(type="PackBands")]))
    )

    class LoadBands(BaseTransform):
        def transform(self, results):
            return results | dict(img=np.full((4, 5, 6), 7.0, np.float32), path=results["img_path"])

    class PackBands(BaseTransform):
        def transform(self, results):
            return results["img"].shape

    names = [cls.__name__ for cls in (LoadBands, PackBands)]
    for cls in (LoadBands, PackBands):
        TRANSFORMS.register_module(module=cls)
    try:
        preprocessing = Preprocessing(Config(config))
    finally:
        for name in names:
            TRANSFORMS._module_dict.pop(name)
    image = preprocessing.read(PHOTO)
    assert image.shape == (4, 5, 6) and preprocessing.prepare(image) == (4, 5, 6)


def test_a_folder_is_no_image(tmp_path):
    with pytest.raises(UserError, match=r"is a folder: name its images, as .*\*\.jpg"):
        read_image(tmp_path)


@pytest.mark.parametrize("pipeline", [[LOAD, PACK], [PACK]], ids=["loaded", "held"])
def test_what_is_lost_of_an_image_is_told(pipeline, tmp_path, caplog):
    """Twelve bits in sixteen, as cameras of microscopes write them, of which eight are read; and pages."""
    pytest.importorskip("mmseg")
    photo = cv2.imread(PHOTO, cv2.IMREAD_GRAYSCALE)
    dim, bright, pages = (str(tmp_path / name) for name in ("dim.png", "bright.png", "pages.tif"))
    cv2.imwrite(dim, photo.astype(np.uint16) << 4)
    cv2.imwrite(bright, photo.astype(np.uint16) << 8)
    cv2.imwritemulti(pages, [photo, photo])
    with own_mmengine():
        init_default_scope("mmseg")
        preprocessing = Preprocessing(Config(loaders(pipeline, pipeline)))
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    try:
        for path in (dim, bright, pages, PHOTO):
            assert preprocessing.read(path).shape == (*photo.shape, 3)
    finally:
        logger.removeHandler(caplog.handler)
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith(f"{dim}: 8 of 16 bits are loaded, and in these they are nearly black")
    assert second == f"{pages}: only the first frame or page is loaded"


def test_images_are_read_as_the_data_set_holds_them():
    """CIFAR's are red, green, blue; files come as blue, green, red from OpenCV."""
    pytest.importorskip("mmpretrain")
    steps = [dict(type="PackInputs")]
    with own_mmengine():
        init_default_scope("mmpretrain")
        held = Preprocessing(Config(dict(test_dataloader=dict(dataset=dict(type="CIFAR100", pipeline=steps)))))
        read = Preprocessing(Config(dict(test_dataloader=dict(dataset=dict(type="CustomDataset", pipeline=steps)))))
    image = held.read(PHOTO)
    np.testing.assert_array_equal(image, cv2.imread(PHOTO)[..., ::-1])
    np.testing.assert_array_equal(read.read(PHOTO), cv2.imread(PHOTO))
    np.testing.assert_array_equal(held.picture(image), cv2.imread(PHOTO))
