"""What several hooks need."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from eyetoy_mm.errors import UserError
from eyetoy_mm.whole_files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EVALUATED = "evaluated"  # of the message hub, which checkpoints hold: after which epoch or iteration that was last


def unwrapped(runner: Runner) -> Any:  # a module; types of its attributes are not known
    """The model itself, where it is wrapped for several processes."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


@contextmanager
def told_if_it_fails(runner: Runner, what: str) -> Iterator[None]:
    """Let no error end a run that is not of the run: of a picture, a line on a terminal. The reason is in the log."""
    try:
        yield
    except Exception as error:
        runner.logger.warning(f"{what}: {type(error).__name__}: {error}")


def save_figure(figure: Figure, target: Path) -> None:
    """Write a figure as PNG; what is there goes when the new one is whole."""
    with replacing(target) as file:
        figure.savefig(file, format="png", dpi=100)


def kind_of(dataset: Any) -> type:
    """The class of a dataset, out of wrappers."""
    while hasattr(dataset, "dataset"):
        dataset = dataset.dataset
    return type(dataset)


def name_of(dataset: Any) -> str:
    """The name of a dataset's class, out of wrappers: what a config names."""
    return kind_of(dataset).__name__


def check_same(train: Sequence[str], val: Sequence[str], advice: str) -> None:
    """Refuse classes that differ in training and validation; as many in both, or none where they have no names."""
    for label, (first, second) in enumerate(zip(train, val)):
        if first != second:
            raise UserError(
                f"label {label} is {first!r} in training and {second!r} in validation: both need the same classes in "
                f"the same order. {advice}"
            )


class CheckClassesHook(Hook):
    """Refuse datasets whose classes are not as many as the model tells apart, or differ in training and validation.

    Classes that a dataset does not name are not checked. Subclasses say which heads count.
    """

    priority = "VERY_HIGH"
    advice = "Give both datasets the same metainfo=dict(classes=(...))"

    def heads(self, model: Any) -> dict[str, int]:
        """How many classes each head of a model tells apart, by its name."""
        raise NotImplementedError

    def before_train(self, runner: Runner) -> None:
        """Compare the classes of the training and the validation set with the model's, and with each other.

        Raises:
            UserError: They differ.
        """
        classes = self.check_classes(runner, runner.train_loop.dataloader)
        if runner.val_loop is not None:
            check_same(classes, self.check_classes(runner, runner.val_loop.dataloader), self.advice)

    def before_test(self, runner: Runner) -> None:
        """Compare the classes of the test set with the model's.

        Raises:
            UserError: They differ.
        """
        self.check_classes(runner, runner.test_loop.dataloader)

    def check_classes(self, runner: Runner, dataloader: DataLoader) -> Sequence[str]:
        """The classes of a dataset, as many as the model's.

        Raises:
            UserError: They are not.
        """
        classes = getattr(dataloader.dataset, "metainfo", {}).get("classes") or ()
        heads = self.heads(unwrapped(runner))
        wrong = [f"model.{name} has num_classes={count}" for name, count in heads.items() if count != len(classes)]
        if classes and wrong:
            raise UserError(
                f"{', '.join(wrong)}, but {name_of(dataloader.dataset)} has {len(classes)} classes "
                f"({classes[0]}, ..., {classes[-1]}). Set num_classes={len(classes)} in each, or check "
                "metainfo=dict(classes=(...)) of the dataset"
            )
        return classes


def samples_of(data_batch: Any) -> Iterator[Any]:
    """Every data sample of a batch, wherever semi-supervised and other loaders put it."""
    if hasattr(data_batch, "metainfo"):
        yield data_batch
    elif isinstance(data_batch, Mapping):
        for key in data_batch:
            yield from samples_of(data_batch[key]) if key != "inputs" else ()
    elif isinstance(data_batch, list | tuple):
        for part in data_batch:
            yield from samples_of(part)


def image_paths(data_batch: Any) -> list[str]:
    """Paths of the images of a batch, in its order; none where its samples do not say."""
    return [str(sample.metainfo["img_path"]) for sample in samples_of(data_batch) if sample.metainfo.get("img_path")]
