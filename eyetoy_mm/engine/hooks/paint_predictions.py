"""Pictures of a test run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement

from eyetoy_mm.engine.painting import make_painter
from eyetoy_mm.engine.preprocessing import Preprocessing
from eyetoy_mm.errors import UserError
from eyetoy_mm.paths import is_address, take_name
from eyetoy_mm.registry import HOOKS


@HOOKS.register_module()
class PaintPredictionsHook(Hook):
    """Paint ground truth and prediction of the images of a test run, alike for mmseg, mmdet and mmpretrain.

    The toolboxes' own hooks paint one of 50 or of 5000 images, take other arguments each, and write below folders of
    their own. Pictures have the names of their images, with the folders below the dataset's.

    Args:
        out_dir: The folder for the pictures.
        interval: Every so many images one is painted.
        score_thr: Detections with a lower score are not painted.
    """

    def __init__(self, out_dir: str | Path, interval: int = 1, score_thr: float = 0.3) -> None:
        self.out_dir = Path(out_dir)
        self.interval = interval
        self.score_thr = score_thr

    def before_test(self, runner: Runner) -> None:
        """Make what paints, with the names of the test set's classes."""
        self._count = 0
        self._used: set[Path] = set()
        self._dataset = runner.test_loop.dataloader.dataset
        self._preprocessing = Preprocessing(runner.cfg)
        self._painter = make_painter(runner.default_scope.scope_name, self._dataset.metainfo, self.score_thr)

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: Sequence[BaseDataElement] | None = None,
    ) -> None:
        """Paint the images of a batch whose turn it is."""
        for sample in outputs or ():
            if self._count % self.interval == 0:
                image, name = self._image_of(sample)
                painted = self._painter.paint(self._preprocessing.picture(image), sample, truth=True)
                mmcv.imwrite(mmcv.rgb2bgr(painted), str(self._target(name)))
            self._count += 1

    def _image_of(self, sample: BaseDataElement) -> tuple[np.ndarray, str]:
        """The image of a sample as it was loaded, and a name for its picture."""
        path, index = sample.get("img_path"), sample.get("sample_idx")
        if path:
            return self._preprocessing.read(path), name_below(self._dataset, path)
        info: dict[str, Any] = {} if index is None else self._dataset.get_data_info(index)
        if "img" not in info:
            raise UserError(
                "--show-dir needs to know which image a prediction is of: let the last step of the test pipeline pack "
                "img_path, or sample_idx where the dataset holds its images itself (meta_keys)"
            )
        return info["img"], f"{index:06}"

    def _target(self, name: str) -> Path:
        target = take_name(self.out_dir / Path(name).with_suffix(""), self._used)
        return target.with_name(f"{target.name}.png")


def name_below(dataset: Any, path: str) -> str:
    """Path of an image below the folder of its dataset; where it is not below, its last part."""
    prefixes = getattr(dataset, "data_prefix", None) or {}
    below = os.path.normpath(path)  # a name in an annotation may lead out with ".."
    for folder in prefixes.values() if isinstance(prefixes, dict) else ():
        if folder and not is_address(path) and Path(below).is_relative_to(os.path.normpath(folder)):
            return str(Path(below).relative_to(os.path.normpath(folder)))
    return Path(path).name
