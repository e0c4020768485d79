"""All processes evaluate the model that is saved."""

import pytest

pytest.importorskip("mmengine")

import torch
from mmengine.hooks import EMAHook
from mmengine.runner import get_priority

from eyetoy_mm.engine.hooks import EvaluateSavedBuffersHook
from tests import program
from tests.test_engine.test_distributed import free_port


def test_buffers_of_the_first_process_are_evaluated(tmp_path):
    port, started = free_port(), []
    for rank in "01":
        place = dict(RANK=rank, WORLD_SIZE="2", LOCAL_RANK=rank, MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
        started.append(program.start("tests/test_engine/buffers_run.py", tmp_path, env=place))
    for process, _, stderr in started:
        process.join(100)
        assert process.exitcode == 0, stderr.read_text()
    first, second = (torch.load(tmp_path / f"{rank}.pth") for rank in (0, 1))
    assert first["running_mean"].tolist() == second["running_mean"].tolist() == [1.0] * 3
    assert (len(first["cache"]), second["cache"].tolist()) == (2, [1.0] * 3)  # in no checkpoint
    assert (first["weight"][0], second["weight"][0]) == (1, 2)  # a matter of training


def test_averaged_weights_are_in_place_before():
    assert get_priority(EvaluateSavedBuffersHook.priority) > get_priority(EMAHook.priority)
