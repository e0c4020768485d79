"""Which back end runs is said once in the log of a Runner."""

import logging

import torch
from mmengine.logging import MMLogger

from eyetoy_mm.backbones import NAT
from eyetoy_mm.backbones.log import MMEngineHandler, attach
from eyetoy_mm.ops import selection


def test_the_back_end_is_in_the_log_file_of_a_run(tmp_path, monkeypatch):
    monkeypatch.setattr(selection, "_told", set())
    log_file = tmp_path / "run.log"
    MMLogger.get_instance("test_log", logger_name="mmengine", log_file=str(log_file))
    model = NAT(None, embed_dims=8, depths=(1, 1), num_heads=(2, 2), kernel_size=3, mlp_ratio=2)
    for _ in range(2):
        model(torch.randn(1, 3, 16, 16))
    lines = [line for line in log_file.read_text().splitlines() if "back end" in line]
    assert len(lines) == 1
    assert "mmengine - INFO - neighborhood attention on cpu runs in back end" in lines[0]


def test_attached_once():
    attach()
    attach()
    handlers = logging.getLogger("eyetoy_mm").handlers
    assert len([handler for handler in handlers if isinstance(handler, MMEngineHandler)]) == 1
