"""Pictures of the last evaluation of a run, in its work dir."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmengine import dist
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.runner import Runner

from eyetoy_mm.engine.evaluation_tallies import BoxTally, PixelTally, Tally, make_tally
from eyetoy_mm.engine.hooks.common import save_figure, told_if_it_fails
from eyetoy_mm.registry import HOOKS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 2000  # images of an evaluation that are counted


@HOOKS.register_module()
class EvaluationPicturesHook(Hook):
    """Draw what the last evaluation of a run says beside its metrics, when the run ends.

    ``confusion.png`` in every toolbox, ``precision_recall.png`` of detection, ``iou.png`` of segmentation, and
    ``worst.png``, the twelve images that were predicted worst, truth on the left. They are of the images of this
    process, and of the first :data:`MOST` of them; the titles say how many. A run whose pictures fail goes on, and its
    log says why.
    """

    priority = "VERY_LOW"  # before the curves, and what comes next

    def __init__(self) -> None:
        self._tally: Tally | None = None
        self._failed = False

    @master_only
    def before_val(self, runner: Runner) -> None:
        """Begin to count."""
        loop: Any = runner.val_loop
        self._tally, self._failed = None, False
        with told_if_it_fails(runner, "No pictures of this evaluation"):
            self._tally = make_tally(runner.default_scope.scope_name, loop.dataloader.dataset)

    @master_only
    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence[Any] | None = None
    ) -> None:
        """Count the images of a batch."""
        if self._tally is None or self._failed or self._tally.images >= MOST:
            return
        self._failed = True
        with told_if_it_fails(runner, "No pictures of this evaluation"):
            for sample in outputs or ():
                self._tally.add(sample)
            self._failed = False

    @master_only
    def after_train(self, runner: Runner) -> None:
        """Draw."""
        tally = self._tally
        if tally is None or self._failed or not tally.images:
            return
        folder = Path(runner.work_dir)
        written = []
        with told_if_it_fails(runner, f"Not every picture of the last evaluation was drawn into {folder}"):
            for name, figure in _figures(tally):
                save_figure(figure, folder / name)
                written.append(name)
            if tally.worst:
                from eyetoy_mm.engine.picture_grids import save

                save(_worst(runner, tally), folder / "worst.png")
                written.append("worst.png")
        if written:
            runner.logger.info(f"The last evaluation as pictures, in {folder}: {', '.join(written)}")


def _figures(tally: Tally) -> list[tuple[str, Figure]]:
    from eyetoy_mm.engine.evaluation_pictures import draw_class_bars, draw_confusion, draw_precision_recall

    share = " of process 0" if dist.get_world_size() > 1 else ""
    title = f"{tally.images} images{share}"
    figures = [("confusion.png", draw_confusion(tally.confusion, tally.classes, title))]
    if isinstance(tally, BoxTally):
        figures.append(("precision_recall.png", draw_precision_recall(tally.precision_recall(), f"IoU 0.5, {title}")))
    if isinstance(tally, PixelTally):
        figures.append(("iou.png", draw_class_bars(tally.iou(), "IoU", title)))
    return figures


def _worst(runner: Runner, tally: Tally) -> Any:
    """The images that were predicted worst, that first."""
    from eyetoy_mm.engine.painting import make_painter
    from eyetoy_mm.engine.picture_grids import grid
    from eyetoy_mm.engine.preprocessing import Preprocessing

    loop: Any = runner.val_loop
    dataset = loop.dataloader.dataset
    preprocessing = Preprocessing(runner.cfg)
    painter = make_painter(runner.default_scope.scope_name, dataset.metainfo)
    pictures, captions = [], []
    for scored in tally.worst:
        path, index = scored.sample.get("img_path"), scored.sample.get("sample_idx")
        image = preprocessing.read(path) if path else dataset.get_data_info(index)["img"]
        pictures.append(painter.paint(preprocessing.picture(image), scored.sample, truth=True))
        captions.append(Path(path).name if path else f"sample {index}")
    return grid(pictures, captions, columns=3, width=480)
