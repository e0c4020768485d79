"""What holds for every test: one random state, its share of the cores, and toolboxes whose metafiles are read once."""

import copy
import gc
import os
import sys
from functools import cache
from pathlib import Path

import pytest
import torch


def pytest_configure(config):
    """Workers side by side (``pytest -n 2``) share the cores, and so do the processes that their tests start."""
    workers = os.environ.get("PYTEST_XDIST_WORKER_COUNT")
    if workers is not None:
        threads = max(1, (os.cpu_count() or 1) // int(workers))
        torch.set_num_threads(threads)
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))
        os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", str(threads))  # more are processes that import PyTorch


def pytest_collection_modifyitems(items):
    """Files with tests that take long come first: workers that are given whole files then end together."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish():
    """What is imported by now stays: collections of garbage, a quarter of a second each, need not go through it."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def one_thread():
    """For tests that are slower, or do not give the same numbers, on several."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _seed():
    """Every test starts from the same random state, whichever tests run before it."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _default_scope():
    """No test finds the default scope of another: a Runner and an inferencer set that of the process."""
    yield
    registry = sys.modules.get("mmengine.registry")
    if registry is not None:
        registry.DefaultScope._instance_dict.clear()


@pytest.fixture(autouse=True, scope="session")
def _configs_take_little_time():
    """mmengine reads all metafiles of mmdet for each base ``mmdet::...``, and lays out what it logs of them by yapf.

    Here metafiles are read once, and so are files that many configs have as bases. Programs of their own do neither.
    """
    try:
        from mmengine.config import Config, config, utils
    except ModuleNotFoundError:
        yield
        return
    find, read, known = Config._get_cfg_path, Config._file2dict, {}
    found = cache(find)

    def read_once(filename, *args, **kwargs):
        if not {"_base_", ".mim"} & set(Path(filename).parts):
            return read(filename, *args, **kwargs)
        key = (str(filename), Path(filename).stat().st_mtime_ns, *args, *kwargs.items())
        if key not in known:
            known[key] = read(filename, *args, **kwargs)
        return copy.deepcopy(known[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, "load", cache(utils.load))
        patch.setattr(config, "FormatCode", lambda text, **style: (text, True))
        patch.setattr(Config, "_file2dict", staticmethod(read_once))
        patch.setattr(
            Config, "_get_cfg_path", staticmethod(lambda path, file: (found if "::" in path else find)(path, file))
        )
        yield


@pytest.fixture(autouse=True, scope="session")
def _models_are_run_on_meta_once():
    """Most mistakes of configs, and most runs, are of the same few models, whose shapes say the same each time."""
    try:
        from eyetoy_mm.engine import config_checks
    except ModuleNotFoundError:
        yield
        return
    run, known = config_checks._misfits, {}

    def run_once(model, config, size=None):
        batch = (config.get("train_dataloader") or {}).get("batch_size")
        settings = [config.get(key) for key in ("default_scope", "launcher", "sync_bn")]
        key = repr((model, size or config_checks._image_size(model, config), batch, settings))
        if key not in known:
            known[key] = list(run(model, config, size))
        return iter(known[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config_checks, "_misfits", run_once)
        yield
