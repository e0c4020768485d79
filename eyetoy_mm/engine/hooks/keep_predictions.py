"""What a test run leaves beside its metrics: counts for a report, and predictions as files."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from mmengine import dist
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement

from eyetoy_mm.engine.evaluation_report import Report, make_report
from eyetoy_mm.engine.hooks.result_names import ResultNames
from eyetoy_mm.engine.prediction_files import PredictionFiles, Wanted
from eyetoy_mm.engine.predictions import prediction_of
from eyetoy_mm.errors import UserError
from eyetoy_mm.registry import HOOKS


@HOOKS.register_module()
class KeepPredictionsHook(Hook):
    """Count the predictions of a test run for a report, and write them as files, alike for the three toolboxes.

    In several processes each writes the masks of its images, and the first the JSON of all.

    Args:
        out_dir: Folder of the files; None for none.
        report: Whether to count.
        calibrated: Whether scores are those of what is predicted; merged views of test-time augmentation have labels
            of all, and in mmseg the scores of the last.

    Attributes:
        report: The counts, once the run is over; None where there are none.
    """

    def __init__(self, out_dir: str | Path | None, report: bool, calibrated: bool = True) -> None:
        self.out_dir = None if out_dir is None else Path(out_dir)
        self.report: Report | None = None
        self._files: PredictionFiles | None = None
        self._counts, self._calibrated = report, calibrated

    def before_test(self, runner: Runner) -> None:
        """Look at the data set, and begin to count."""
        loop: Any = runner.test_loop
        dataset = loop.dataloader.dataset
        self._names = ResultNames(dataset)
        classes = list(dataset.metainfo.get("classes") or ())
        self._classes = len(classes)
        scope = runner.default_scope.scope_name
        if self._counts:
            self.report = make_report(scope, classes)
            if scope == "mmseg" and not self._calibrated:
                self.report.calibration = None
        if self.out_dir is not None:
            if not classes:
                raise UserError("--out needs a data set that names its classes (metainfo)")
            wanted = Wanted(json=True, masks=scope == "mmseg")
            ids = getattr(dataset, "cat_ids", None)
            self._files = PredictionFiles(self.out_dir, classes, wanted, ids)

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: Sequence[BaseDataElement] | None = None,
    ) -> None:
        """Count and write a batch."""
        for position, sample in self._names.once(outputs or ()):
            if self.report is not None:
                self.report.add(sample)
            if self._files is not None:
                self._write(position, sample)

    def after_test(self, runner: Runner) -> None:
        """Bring together what all processes have."""
        if self.report is not None:
            self.report.sum_over_processes()
        if self._files is not None:
            parts = dist.all_gather_object(self._files.entries)
            dealt = (entry for turn in zip_longest(*parts) for entry in turn)  # as in the data set
            self._files.entries = [entry for entry in dealt if entry is not None]
            if dist.is_main_process():
                self._files.close()

    def _write(self, position: int, sample: Any) -> None:
        assert self._files is not None
        path = sample.get("img_path")
        name, target = self._names.name(position, path), self._names.target(position, path)
        height, width = (sample.get("ori_shape") or sample.get("img_shape") or (0, 0))[:2]
        prediction = prediction_of(sample, (int(height), int(width)), self._classes)
        number = sample.get("img_id")  # COCO's; mmdet's other data sets have names
        self._files.add(name, target, prediction, image_id=position + 1 if number is None else number)
