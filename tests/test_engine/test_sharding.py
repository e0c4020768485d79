"""Engines: the same losses, state and checkpoints from whole models and from shards."""

import json
import pickle
import re
import shutil
from functools import partial

import pytest
import torch
import torch.distributed as dist
from torch import nn

pytest.importorskip("mmengine")

from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS

from eyetoy_mm.compat.checkpoint_loading import CheckpointError
from eyetoy_mm.compat.whole_checkpoints import newest_whole
from eyetoy_mm.engine import sharded_checkpoints
from eyetoy_mm.engine.blocks import block_names
from eyetoy_mm.engine.distributed import joined
from eyetoy_mm.engine.engines import FSDP2, engine_findings
from eyetoy_mm.engine.sharded_checkpoints import Saving, load_from_disk, read_directory
from eyetoy_mm.engine.sharding import all_processes, check_optimizer, shard_model, shard_of
from eyetoy_mm.engine.skeletons import build_on_meta
from eyetoy_mm.errors import UserError
from eyetoy_mm.whole_files import remove_temporaries
from tests import program
from tests.test_engine import engine_runs
from tests.test_engine.test_distributed import free_port

SHARDS = dict(type="FSDP2", checkpoints="sharded", async_save=True)
EXACT = dict(  # no rounding that training enlarges; a schedule counts iterations, not steps of the optimizer
    double=True, train_cfg=dict(by_epoch=False, max_iters=20), param_scheduler=None,
    default_hooks=dict(checkpoint=dict(type="CheckpointHook", by_epoch=False, save_last=False)),
)  # fmt: skip
ACCUMULATED = EXACT | dict(optim_wrapper=dict(optimizer=dict(type="AdamW", lr=0.01), accumulative_counts=2))
WHOLE = EXACT | dict(optim_wrapper=dict(optimizer=dict(type="AdamW", lr=0.01)))
RUNS = [
    dict(name="ddp"),
    dict(name="full", engine="FSDP2"),
    dict(name="shards", engine=SHARDS),
    dict(name="full-ddp", resume="full/iter_3.pth"),
    dict(name="shards-ddp", resume="shards/iter_3.pth"),
    dict(name="ddp-full", resume="ddp/iter_3.pth", engine="FSDP2"),
    dict(name="shards-shards", resume="shards/iter_3.pth", engine=SHARDS),
    dict(name="alone-shards", resume="alone/iter_3.pth", engine=SHARDS),
    dict(
        name="accumulated", engine=dict(type="FSDP2", param_dtype="bfloat16", reduce_dtype="float32"),
        custom_hooks=[dict(type="eyetoy_mm.RecomputeBlocksHook")],
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.01), clip_grad=dict(max_norm=0.5), accumulative_counts=2),
    ),
    dict(
        name="accumulated-ddp",
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.01), clip_grad=dict(max_norm=0.5), accumulative_counts=2),
    ),
    dict(name="exact-ddp", **WHOLE),
    dict(name="exact-shards", engine="FSDP2", **WHOLE),
    dict(name="halves-ddp", **ACCUMULATED),
    dict(name="halves-shards", engine="FSDP2", **ACCUMULATED),
    dict(name="told", engine=SHARDS, told_at=1),
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """All runs: in one process the first, in two processes the others, and in one again what goes on from those."""
    folder = tmp_path_factory.mktemp("engines")
    losses = {"alone": engine_runs.train(folder, "alone")}
    losses["exact-alone"] = engine_runs.train(folder, "exact-alone", **WHOLE)
    losses["halves-alone"] = engine_runs.train(folder, "halves-alone", **ACCUMULATED)
    losses["twice-alone"] = engine_runs.train(folder, "twice-alone", samples=8, **WHOLE)
    port, started = free_port(), []
    for rank in "01":
        place = dict(RANK=rank, WORLD_SIZE="2", LOCAL_RANK=rank, MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
        arguments = ("tests/test_engine/engine_runs.py", folder, json.dumps(RUNS))
        started.append(program.start(*arguments, env=place))
    for process, _, stderr in started:
        process.join(300)
        assert process.exitcode == 85, stderr.read_text()
    for run, found in zip(RUNS[:-1], json.loads((folder / "losses.0.json").read_text()), strict=True):
        losses[run["name"]] = {int(step): loss for step, loss in found.items()}
    losses["shards-alone"] = engine_runs.train(folder, "shards-alone", resume="shards/iter_3.pth")
    with joined(Config(dict(engine="FSDP2"))):
        losses["shards-one"] = engine_runs.train(folder, "shards-one", resume="shards/iter_3.pth", engine="FSDP2")
    (folder / "losses.json").write_text(json.dumps(losses))
    yield folder
    del MODELS.module_dict["Small"], DATASETS.module_dict["Points"]


@pytest.mark.parametrize("name", [run["name"] for run in RUNS[:8]])
def test_two_processes_are_one(folder, name):
    losses = json.loads((folder / "losses.json").read_text())
    expected = {step: loss for step, loss in losses["alone"].items() if step in losses[name]}
    assert losses[name] == pytest.approx(expected, rel=1e-5)
    assert list(losses[name]) == list("345" if "-" in name else "012345")
    assert len(set(expected.values())) == len(expected)


@pytest.mark.parametrize("kind", ["exact", "halves"])
def test_twenty_steps_are_those_of_one_process(folder, kind):
    losses = json.loads((folder / "losses.json").read_text())
    alone = losses[f"{kind}-alone"]
    assert len(set(alone.values())) == 20
    for name in ("ddp", "shards"):
        assert losses[f"{kind}-{name}"] == pytest.approx(alone, rel=1e-10), name


def test_batches_that_are_accumulated_are_one(folder):
    """Twice as many samples at once have the mean of the losses of their halves, at every step."""
    losses = json.loads((folder / "losses.json").read_text())
    halves, whole = ([*losses[name].values()] for name in ("halves-alone", "twice-alone"))
    means = [(first + second) / 2 for first, second in zip(halves[::2], halves[1::2], strict=True)]
    assert means == pytest.approx(whole[:10], rel=1e-10)


@pytest.mark.parametrize("name", ["shards-alone", "shards-one"])
def test_one_process_goes_on_from_two(folder, name):
    losses = json.loads((folder / "losses.json").read_text())
    assert losses[name] == pytest.approx({step: losses["alone"][step] for step in "345"}, rel=1e-5)


@pytest.mark.parametrize("name", ["ddp", "full", "shards", "ddp-full", "shards-shards", "shards-alone"])
def test_state_at_the_end_is_that_of_one_process(folder, name):
    """Weights, their averages, the optimizer's state, log: in a file or a directory, as mmengine saves them."""
    expected, found = (load_from_disk(str(folder / run / "iter_6.pth"), "cpu") for run in ("alone", name))
    assert found.keys() == expected.keys()
    for key in ("state_dict", "ema_state_dict"):
        assert set(found[key]) == set(expected[key])
        for tensor, x in expected[key].items():
            assert type(found[key][tensor]) is torch.Tensor
            torch.testing.assert_close(found[key][tensor], x, rtol=1e-4, atol=1e-6)
    assert found["optimizer"]["param_groups"] == expected["optimizer"]["param_groups"]
    for index, state in expected["optimizer"]["state"].items():
        for key, x in state.items():
            torch.testing.assert_close(found["optimizer"]["state"][index][key], x, rtol=1e-3, atol=1e-6)
    assert found["meta"]["iter"] == 6 and found["param_schedulers"] == expected["param_schedulers"]


def test_norm_of_the_gradient_is_that_of_all_shards(folder):
    norms = {}
    for name in ("alone", "ddp", "full"):
        checkpoint = load_from_disk(str(folder / name / "iter_6.pth"), "cpu")
        norms[name] = checkpoint["message_hub"]["log_scalars"]["train/grad_norm"].data[0].tolist()
    assert norms["full"] == pytest.approx(norms["alone"], rel=1e-4)


def test_accumulation_in_bfloat16_with_activation_checkpointing(folder):
    losses = json.loads((folder / "losses.json").read_text())
    assert losses["accumulated"] == pytest.approx(losses["accumulated-ddp"], rel=0.02)
    assert losses["accumulated"] != losses["accumulated-ddp"]  # in other numbers of bits


def test_last_checkpoint_and_what_is_kept(folder):
    assert (folder / "shards/last_checkpoint").read_text() == "iter_6.pth"
    assert newest_whole(folder / "shards") == str(folder / "shards/iter_6.pth")
    assert not list((folder / "shards").glob(".*"))


def test_what_is_told_to_stop_has_saved_when_it_ends(folder):
    assert newest_whole(folder / "told") == str(folder / "told/iter_2.pth")
    assert (folder / "told/last_checkpoint").read_text() == "iter_2.pth"
    assert read_directory(folder / "told/iter_2.pth")["meta"]["iter"] == 2


@pytest.mark.parametrize("damage", [".metadata", "sizes.json", "rest.pth", "__1_0.distcp", "cut"])
def test_incomplete_directories_are_passed_over(folder, tmp_path, damage):
    shutil.copytree(folder / "shards/iter_3.pth", tmp_path / "iter_3.pth")
    broken = tmp_path / "iter_6.pth"
    shutil.copytree(folder / "shards/iter_6.pth", broken)
    if damage == "cut":
        shards = broken / "__0_0.distcp"
        shards.write_bytes(shards.read_bytes()[:-100])
    else:
        (broken / damage).unlink()
    assert newest_whole(tmp_path) == str(tmp_path / "iter_3.pth")


def test_metadata_runs_nothing(folder, tmp_path):
    hostile = tmp_path / "iter_3.pth"
    shutil.copytree(folder / "shards/iter_3.pth", hostile)
    (hostile / ".metadata").write_bytes(pickle.dumps(partial(print, "run")))
    with pytest.raises(CheckpointError, match="asks to import functools.partial"):
        read_directory(hostile)


@pytest.fixture
def alone():
    with joined(Config(dict(engine="FSDP2"))):
        yield all_processes()
    assert not dist.is_initialized()


def test_saving_in_the_background_is_of_that_moment(alone, tmp_path, monkeypatch):
    """Training goes on, and the name, and what waits for it, come when all is written."""
    x, events = torch.arange(6.0).reshape(3, 2), []
    sharded = shard_of(x, alone)
    monkeypatch.setattr(sharded_checkpoints, "renamed_over", lambda *args: events.append("complete"))
    saving = Saving(tmp_path / "iter_1.pth", dict(meta=dict(iter=1), state_dict=dict(x=sharded)), dist.group.WORLD)
    saving.then(lambda: events.append("then"))
    sharded.to_local().zero_()
    saving.wait()
    assert events == ["complete", "then"]
    (temporary,) = tmp_path.iterdir()
    assert torch.equal(read_directory(temporary)["state_dict"]["x"], x)
    assert remove_temporaries(tmp_path) == [temporary.name] and not list(tmp_path.iterdir())


def test_a_save_that_fails_is_told_and_leaves_the_one_before(alone, tmp_path, monkeypatch):
    checkpoint = dict(meta=dict(iter=1), state_dict=dict(x=shard_of(torch.ones(3), alone)))
    Saving(tmp_path / "iter_1.pth", checkpoint)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torch.distributed.checkpoint.filesystem.FileSystem.create_stream", full)
    saving, done = Saving(tmp_path / "iter_1.pth", checkpoint, dist.group.WORLD), []
    saving.then(lambda: done.append(1))
    for save in (saving.wait, lambda: Saving(tmp_path / "iter_1.pth", checkpoint)):
        with pytest.raises(OSError, match="No space left on device.*iter_1.pth"):
            save()
    monkeypatch.undo()
    assert not done and [path.name for path in tmp_path.iterdir()] == ["iter_1.pth"]
    assert torch.equal(read_directory(tmp_path / "iter_1.pth")["state_dict"]["x"], torch.ones(3))


@pytest.mark.parametrize("name", ["AdamW", "SGD", "RMSprop", "Adagrad"])
def test_optimizers_that_know_shards(alone, name):
    check_optimizer(dict(type=name, lr=0.1), alone)


def test_an_optimizer_that_does_not(alone):
    with pytest.raises(UserError, match="'LBFGS' does not know shards: it fails on them"):
        check_optimizer(dict(type="LBFGS", lr=0.1), alone)


def test_models_that_cannot_be_sharded(alone):
    model = nn.Module()
    model.scale = nn.Parameter(torch.tensor(1.0))
    with pytest.raises(UserError, match="along their first dimension, and scale have none"):
        shard_model(model, FSDP2(), alone)
    model = nn.ModuleList(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)) for _ in range(2))
    with pytest.raises(UserError, match="'bfloat16': the block 0 .Sequential. has batch norm"):
        shard_model(model, FSDP2(param_dtype="bfloat16"), alone)


def row(*kinds: type[nn.Module]) -> nn.ModuleList:
    return nn.ModuleList(kind() for kind in kinds)


def test_blocks_are_what_repeats():
    class Part(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.ModuleList(nn.Sequential(nn.Linear(2, 2)) for _ in range(2))

    class Stage(nn.Module):
        def __init__(self, width=2):
            super().__init__()
            self.blocks = row(Part, Part)
            self.down = nn.Linear(width, 3)

    model = nn.Module()
    model.backbone = nn.Module()
    model.backbone.stages = nn.ModuleList([Stage(2), Stage(4)])
    model.head = row(Part, Part)
    assert block_names(model) == [f"backbone.stages.{stage}.blocks.{i}" for stage in (0, 1) for i in (0, 1)]
    assert block_names(model, ["Stage", "head.1"]) == ["backbone.stages.0", "backbone.stages.1", "head.1"]
    with pytest.raises(UserError, match=r"called Block\. Its classes are .*Part"):
        block_names(model, ["Block"])


@pytest.mark.parametrize(
    ("model", "scope", "kind", "number"),
    [
        (dict(type="eyetoy_mm.EyeToy", arch="tiny"), "mmengine", "MSNATTransformer2D", None),
        (dict(type="eyetoy_mm.NAT", arch="mini"), "mmengine", "Block", 18),
        (dict(type="mmdet.ResNet", depth=50), "mmdet", "Bottleneck", 16),
        (dict(type="mmdet.SwinTransformer"), "mmdet", "SwinBlock", 12),
        (dict(type="mmpretrain.ConvNeXt", arch="tiny"), "mmpretrain", "ConvNeXtBlock", 18),
        (dict(type="mmpretrain.VisionTransformer", arch="b"), "mmpretrain", "TransformerEncoderLayer", 12),
    ],
)
def test_blocks_of_backbones(model, scope, kind, number):
    pytest.importorskip(scope)
    from mmengine.registry import DefaultScope

    outer = nn.Module()
    with DefaultScope.overwrite_default_scope(scope):
        outer.backbone = build_on_meta(model)
    kinds = [type(outer.get_submodule(name)).__name__ for name in block_names(outer)]
    assert kind in kinds
    if number is not None:
        assert kinds.count(kind) == number


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(engine="FSDP"), "engine='FSDP': should be one of DDP, FSDP2; did you mean"),
        (dict(engine=dict(type="FSDP2", async_save=True)), "engine.async_save=True: .*checkpoints='sharded'"),
        (dict(engine=dict(type="FSDP2", param_dtype="half")), "engine.param_dtype='half': should be one of None"),
        (dict(engine=dict(type="FSDP2", shards=2)), "engine.shards=2: FSDP2 takes no shards"),
        (dict(engine="FSDP2", find_unused_parameters=True), "find_unused_parameters=True: is DDP's"),
        (dict(engine="FSDP2", model_wrapper_cfg=dict(type="MMDistributedDataParallel")), "model_wrapper_cfg: is DDP's"),
        (dict(model_wrapper_cfg=dict(type="MMFullyShardedDataParallel")), "FSDP1 neither saves nor resumes"),
        (dict(strategy=dict(type="FSDPStrategy")), "strategy: nothing reads it"),
        (dict(engine="FSDP2", optim_wrapper=dict(type="OptimWrapperDict")), "optim_wrapper: .* the state of one"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_told(settings, message):
    config = Config(dict(optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.1))) | settings)
    (finding,) = engine_findings(config)
    assert finding.fatal
    assert re.search(message, str(finding)), str(finding)


def test_no_findings_where_nothing_is_wrong():
    optim_wrapper = dict(optimizer=dict(type="SGD", lr=0.1))
    for engine in (None, "DDP", "FSDP2", dict(type="FSDP2", blocks=["Block"], checkpoints="sharded", async_save=True)):
        assert not list(engine_findings(Config(dict(engine=engine, optim_wrapper=optim_wrapper))))
