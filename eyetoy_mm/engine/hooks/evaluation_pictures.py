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


class _TallyHook(Hook):
    """Counts the images of a loop; a run whose counting fails goes on without it, and its log says why."""

    failing: str
    """What a log says that there will not be."""

    def __init__(self) -> None:
        self._tally: Tally | None = None

    def _begin(self, runner: Runner, loop: Any) -> None:
        self._tally = None
        with told_if_it_fails(runner, self.failing):
            self._tally = make_tally(runner.default_scope.scope_name, loop.dataloader.dataset)

    def _count(self, runner: Runner, outputs: Sequence[Any] | None) -> None:
        tally, self._tally = self._tally, None
        if tally is not None:
            with told_if_it_fails(runner, self.failing):
                for sample in outputs or ():
                    tally.add(sample)
                self._tally = tally


@HOOKS.register_module()
class EvaluationPicturesHook(_TallyHook):
    """Draw what the last evaluation of a run says beside its metrics, when the run ends.

    ``confusion.png`` in every toolbox, ``precision_recall.png`` of detection, ``iou.png`` of segmentation, and
    ``worst.png``, the twelve images that were predicted worst, truth on the left. They are of the images of this
    process, and of the first :data:`MOST` of them; the titles say how many. A run whose pictures fail goes on, and its
    log says why.
    """

    priority = "VERY_LOW"  # before the curves, and what comes next
    failing = "No pictures of this evaluation"

    @master_only
    def before_val(self, runner: Runner) -> None:
        """Begin to count."""
        self._begin(runner, runner.val_loop)

    @master_only
    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence[Any] | None = None
    ) -> None:
        """Count the images of a batch."""
        if self._tally is not None and self._tally.images < MOST:
            self._count(runner, outputs)

    @master_only
    def after_train(self, runner: Runner) -> None:
        """Draw."""
        tally = self._tally
        if tally is None or not tally.images:
            return
        folder = Path(runner.work_dir)
        written = []
        with told_if_it_fails(runner, f"Not every picture of the last evaluation was drawn into {folder}"):
            for name, figure in _figures(tally):
                save_figure(figure, folder / name)
                written.append(name)
            if _save_worst(runner, runner.val_loop, tally, folder):
                written.append("worst.png")
        if written:
            runner.logger.info(f"The last evaluation as pictures, in {folder}: {', '.join(written)}")


@HOOKS.register_module()
class WorstImagesHook(_TallyHook):
    """Paint the images of a test run that were predicted worst, truth on the left: ``worst.png``.

    They are of the images of this process, all of them. A run whose picture fails goes on, and its log says why.

    Args:
        out_dir: Folder of the picture.
    """

    failing = "No picture of the worst images"

    def __init__(self, out_dir: str | Path) -> None:
        super().__init__()
        self.out_dir = Path(out_dir)
        self.written = False

    @master_only
    def before_test(self, runner: Runner) -> None:
        """Begin to count."""
        self._begin(runner, runner.test_loop)

    @master_only
    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence[Any] | None = None
    ) -> None:
        """Count the images of a batch."""
        self._count(runner, outputs)

    @master_only
    def after_test(self, runner: Runner) -> None:
        """Paint."""
        if self._tally is not None:
            with told_if_it_fails(runner, self.failing):
                self.out_dir.mkdir(parents=True, exist_ok=True)
                self.written = _save_worst(runner, runner.test_loop, self._tally, self.out_dir)


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


def _save_worst(runner: Runner, loop: Any, tally: Tally, folder: Path) -> bool:
    """Paint the images of a loop that were predicted worst, that first; False where all were right."""
    from eyetoy_mm.engine.painting import make_painter
    from eyetoy_mm.engine.picture_grids import grid, save
    from eyetoy_mm.engine.preprocessing import Preprocessing

    if not tally.worst:
        return False
    dataset = loop.dataloader.dataset
    preprocessing = Preprocessing(runner.cfg)
    painter = make_painter(runner.default_scope.scope_name, dataset.metainfo)
    pictures, captions = [], []
    for scored in tally.worst:
        path, index = scored.sample.get("img_path"), scored.sample.get("sample_idx")
        image = preprocessing.read(path) if path else dataset.get_data_info(index)["img"]
        pictures.append(painter.paint(preprocessing.picture(image), scored.sample, truth=True))
        captions.append(Path(path).name if path else f"sample {index}")
    save(grid(pictures, captions, columns=3, width=480), folder / "worst.png")
    return True
