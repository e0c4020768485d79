"""mmengine's Runner, whose data are checked where they are built."""

from __future__ import annotations

from mmengine.runner import Runner
from torch.utils.data import DataLoader
from typing_extensions import override

from eyetoy_mm.engine.hooks import CheckImagesHook


class CheckedRunner(Runner):
    """A Runner that lets its :class:`CheckImagesHook` look at each dataset as soon as it is built.

    No point of a hook is early enough: a loop by iterations starts the workers, with their copies of the dataset, when
    it is made.
    """

    @override
    def build_dataloader(
        self, dataloader: DataLoader | dict, seed: int | None = None, diff_rank_seed: bool = False
    ) -> DataLoader:
        loader = Runner.build_dataloader(dataloader, seed, diff_rank_seed)
        for hook in self.hooks:
            if isinstance(hook, CheckImagesHook):
                hook.check(loader.dataset)
        return loader
