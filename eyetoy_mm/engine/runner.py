"""mmengine's Runner, whose data are checked where they are built."""

from __future__ import annotations

from mmengine.runner import Runner
from torch.utils.data import DataLoader
from typing_extensions import override

from eyetoy_mm.datasets.files import why_not_listed
from eyetoy_mm.engine.hooks import CheckImagesHook
from eyetoy_mm.errors import UserError


class CheckedRunner(Runner):
    """A Runner that lets its :class:`CheckImagesHook` look at each dataset as soon as it is built.

    No point of a hook is early enough: a loop by iterations starts the workers, with their copies of the dataset, when
    it is made.
    """

    @override
    def build_dataloader(
        self, dataloader: DataLoader | dict, seed: int | None = None, diff_rank_seed: bool = False
    ) -> DataLoader:
        try:
            loader = Runner.build_dataloader(dataloader, seed, diff_rank_seed)
        except OSError as error:  # of listing its files
            raise UserError(f"the dataset cannot be listed: {why_not_listed(error)}") from error
        for hook in self.hooks:
            if isinstance(hook, CheckImagesHook):
                hook.check(loader.dataset)
        return loader
