"""What a Runner says of data that cannot be listed."""

import os
from types import SimpleNamespace

import pytest
from mmengine.dataset import BaseDataset
from mmengine.visualization import Visualizer

from eyetoy_mm.engine.runner import CheckedRunner
from eyetoy_mm.errors import UserError


class Listed(BaseDataset):
    """Reads a folder as mmengine's file client does, links too."""

    def load_data_list(self):
        return [dict(img_path=entry.path) for entry in os.scandir(self.data_root) if entry.is_file()]


def test_a_link_to_itself_is_named(tmp_path):
    (tmp_path / "a.jpg").symlink_to("a.jpg")
    loader = dict(batch_size=1, num_workers=0, sampler=dict(type="DefaultSampler", shuffle=False))
    loader["dataset"] = dict(type=Listed, data_root=str(tmp_path))
    with pytest.raises(UserError, match=r"cannot be listed: .*a.jpg is a link that leads back to where it is; take"):
        CheckedRunner.build_dataloader(SimpleNamespace(hooks=[]), loader)


class Drawer(Visualizer):
    """Keeps its instances for itself, as those of the toolboxes do."""


def test_each_run_of_a_process_draws_into_its_own_folder(tmp_path):
    for name in ("first", "second"):
        runner = object.__new__(CheckedRunner)
        runner._experiment_name, runner._log_dir = "both", str(tmp_path)
        backend = dict(type="LocalVisBackend")
        settings = dict(type=Drawer, name="pictures", vis_backends=[backend], save_dir=str(tmp_path / name))
        drawn = runner.build_visualizer(settings)
        assert drawn is Visualizer.get_current_instance()
        assert name in drawn.get_backend("LocalVisBackend")._save_dir
