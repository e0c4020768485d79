"""Pictures of a test run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement

from eyetoy_mm.engine.hooks.result_names import ResultNames
from eyetoy_mm.engine.painting import make_painter
from eyetoy_mm.engine.preprocessing import Preprocessing
from eyetoy_mm.errors import UserError
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
        self._dataset = runner.test_loop.dataloader.dataset
        self._names = ResultNames(self._dataset)
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
        for position, sample in self._names.once(outputs or ()):
            if position % self.interval == 0:
                image = self._image_of(sample)
                painted = self._painter.paint(self._preprocessing.picture(image), sample, truth=True)
                target = self.out_dir / self._names.target(position, sample.get("img_path"))
                mmcv.imwrite(mmcv.rgb2bgr(painted), str(target.with_name(f"{target.name}.png")))

    def _image_of(self, sample: BaseDataElement) -> np.ndarray:
        """The image of a sample as it was loaded."""
        path, index = sample.get("img_path"), sample.get("sample_idx")
        if path:
            return self._preprocessing.read(path)
        info: dict[str, Any] = {} if index is None else self._dataset.get_data_info(index)
        if "img" not in info:
            raise UserError(
                "--show-dir needs to know which image a prediction is of: let the last step of the test pipeline pack "
                "img_path, or sample_idx where the dataset holds its images itself (meta_keys)"
            )
        return info["img"]
