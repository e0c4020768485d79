"""Runs that become NaN or infinite, each stopped by a real Runner with the fault's name."""

import logging
import math
import os
from types import SimpleNamespace

import pytest
import torch
from torch import nn

mmengine = pytest.importorskip("mmengine", reason="mmengine is not installed")
from mmengine.config import Config  # noqa: E402
from mmengine.hooks import Hook  # noqa: E402
from mmengine.model import BaseModel  # noqa: E402
from mmengine.optim import AmpOptimWrapper, OptimWrapper  # noqa: E402
from mmengine.runner import Runner  # noqa: E402
from mmengine.structures import BaseDataElement, InstanceData  # noqa: E402

from eyetoy_mm.engine.hooks import CheckDetDataHook, StopOnNonFiniteHook  # noqa: E402
from eyetoy_mm.engine.hooks.common import image_paths  # noqa: E402
from eyetoy_mm.engine.launch import add_guards  # noqa: E402
from eyetoy_mm.errors import UserError  # noqa: E402
from tests import program  # noqa: E402

STEPS = 8


class NaNGradient(torch.autograd.Function):
    """The value stays and its gradient is lost, as that of the root of a zero variance is."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * math.nan


class Model(BaseModel):
    """Goes wrong in step ``at`` (from 1)."""

    def __init__(self, fault="", at=5):
        super().__init__()
        self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2)
        self.register_buffer("mean", torch.zeros(2))
        self.fault, self.at, self.step = fault, at, 0

    def forward(self, inputs, data_samples=None, mode="tensor"):
        self.step += 1
        now = self.step == self.at
        x = torch.stack(inputs)
        hidden = self.first(x).detach() if now and self.fault == "gradient" else self.first(x)
        out = self.second(hidden)
        if now and self.fault == "gradient":
            out = NaNGradient.apply(out) + self.first.weight.sum()
        if now and self.fault == "buffer":
            self.mean.fill_(math.inf)
        factor = {"loss": math.nan, "spike": 1e6}.get(self.fault, 1.0) if now else 1.0
        return dict(loss_cls=out.square().mean(), loss_bbox=(out - 1).square().mean() * factor, acc=x.sum() * math.nan)


def samples(count=2 * STEPS):
    """Two a step; none of mmdet's classes are needed to have a path."""
    return [
        dict(inputs=torch.full((2,), 1.0 + i % 3), data_samples=BaseDataElement(metainfo=dict(img_path=f"{i}.jpg")))
        for i in range(count)
    ]


def run(folder, model, hook=None, clip_grad=None, **checkpoint):
    checkpoint = dict(type="CheckpointHook", by_epoch=False, interval=2) | checkpoint
    loader = dict(
        dataset=samples(), batch_size=2, sampler=dict(type="DefaultSampler", shuffle=False),
        collate_fn=dict(type="pseudo_collate"),
    )  # fmt: skip
    runner = Runner(
        model,
        str(folder),
        train_dataloader=loader,
        train_cfg=dict(by_epoch=False, max_iters=STEPS),
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.01), clip_grad=clip_grad),
        default_hooks=dict(checkpoint=checkpoint),
        custom_hooks=[hook or StopOnNonFiniteHook()],
        experiment_name=str(folder),
        log_level="ERROR",
    )
    runner.train()
    return runner


def saved(folder):
    return sorted(int(path.stem.removeprefix("iter_")) for path in folder.glob("iter_*.pth"))


def test_a_loss_that_is_nan_stops_with_term_images_and_checkpoint(tmp_path):
    with pytest.raises(UserError) as caught:
        run(tmp_path, Model("loss", at=6))
    message = str(caught.value)
    assert message.startswith("step 6 is not finite: loss is nan, loss_bbox is nan (beside loss_cls ")
    assert "[images: 10.jpg, 11.jpg]" in message
    assert f"--resume {tmp_path / 'iter_4.pth'}" in message
    assert saved(tmp_path) == [2, 4]
    assert (tmp_path / "last_checkpoint").read_text() == "iter_4.pth"


@pytest.mark.parametrize("clip_grad", [None, dict(max_norm=1.0), dict(type="value", clip_value=1.0)])
def test_a_gradient_that_is_nan_stops_with_its_parameters(tmp_path, clip_grad):
    with pytest.raises(UserError, match=r"step 5 .*gradient of 2 of 3 parameters: second.weight, second.bias \[") as e:
        run(tmp_path, Model("gradient"), clip_grad=clip_grad)
    assert "8.jpg, 9.jpg" in str(e.value) and saved(tmp_path) == [2, 4]


def test_accumulated_gradients_are_told_with_the_images_of_all_their_batches():
    weight = nn.Parameter(torch.ones(2))
    wrapper = OptimWrapper(torch.optim.SGD([weight], lr=0.1), accumulative_counts=2)
    wrapper.initialize_count_status(nn.Identity(), 0, 4)
    runner = SimpleNamespace(model=nn.ParameterList([weight]), optim_wrapper=wrapper, hooks=[], work_dir="nowhere")
    hook = StopOnNonFiniteHook()
    hook.before_train(runner)
    with pytest.raises(UserError, match=r"^step 4 .*1 of 1 parameters: 0 \[images: 2.jpg, 3.jpg\]"):
        for runner.iter in range(4):
            out = NaNGradient.apply(weight) if runner.iter == 2 else weight
            wrapper.update_params(out.sum())
            batch = dict(data_samples=[BaseDataElement(metainfo=dict(img_path=f"{runner.iter}.jpg"))])
            hook.after_train_iter(runner, runner.iter, batch, dict(loss=1.0))


@pytest.mark.parametrize("first", [0.0, 1.0])
def test_a_run_that_learns_nothing_ends_after_ten_updates(first):
    """Losses of no weight, say. A model that has learnt something may stay where it is."""
    model = nn.Linear(2, 1)
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    runner = SimpleNamespace(model=model, optim_wrapper=wrapper, iter=0, hooks=[], work_dir=".")
    hook, told = StopOnNonFiniteHook(), []
    hook.before_train(runner)
    for step in range(12):
        wrapper.update_params(model(torch.ones(1, 2)).sum() * (0.0 if step else first))
        try:
            hook.after_train_iter(runner, step, None, dict(loss=0.0))
        except UserError as error:
            told.append((step, str(error)))
            break
    hook.after_train(runner)
    assert bool(told) == (first == 0)
    for step, text in told:
        assert (
            step == 9 and "nothing is learnt: the gradients of all 2 parameters were 0 in each of the first 10" in text
        )


def test_weights_that_are_not_finite_are_not_saved_and_cost_no_checkpoint(tmp_path):
    with pytest.raises(UserError, match=r"step 6 is not finite: 1 of 5 weights are not finite: mean"):
        run(tmp_path, Model("buffer"), max_keep_ckpts=1)
    assert saved(tmp_path) == [4]
    with pytest.raises(UserError, match=r"1 of 2 weights .*: b\. The checkpoint is not saved. No checkpoint has been"):
        StopOnNonFiniteHook().before_save_checkpoint(
            SimpleNamespace(iter=3, work_dir=str(tmp_path / "none")),
            dict(state_dict=dict(a=torch.ones(2), b=torch.tensor(math.inf), steps=torch.tensor(3))),
        )


def test_weights_are_looked_at_before_they_are_evaluated_in_training(tmp_path):
    runner = SimpleNamespace(model=Model(), iter=7, work_dir=str(tmp_path), optim_wrapper=None)
    runner.model.mean.fill_(math.nan)
    hook = StopOnNonFiniteHook()
    hook.before_val_epoch(runner)  # an evaluation alone
    optimizer = torch.optim.SGD(runner.model.parameters(), lr=0.1)
    runner.optim_wrapper = OptimWrapper(optimizer)
    hook.before_train(runner)
    with pytest.raises(UserError, match="step 7: 1 of 5 weights are not finite: mean"):
        hook.before_val_epoch(runner)
    hook.after_train(runner)
    assert "step" not in vars(runner.optim_wrapper)


def test_without_faults_nothing_is_stopped_or_kept(tmp_path):
    hook = StopOnNonFiniteHook()
    runner = run(tmp_path, Model(), hook, clip_grad=dict(max_norm=1.0))
    assert saved(tmp_path) == [2, 4, 6, 8] and hook.watches == []
    assert "step" not in vars(runner.optim_wrapper)


def test_two_hooks_watch_one_optimizer():
    first, second = StopOnNonFiniteHook(), StopOnNonFiniteHook()
    wrapper = OptimWrapper(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0))
    runner = SimpleNamespace(model=torch.nn.Identity(), optim_wrapper=wrapper)
    for hook in (first, second):
        hook.before_train(runner)
    parameter = wrapper.param_groups[0]["params"][0]
    wrapper.update_params((parameter * 2).sum())
    assert parameter.item() == -2.0 and not first.watches[0].take() and not second.watches[0].take()
    for hook in (first, second):
        hook.after_train(runner)
    assert "step" not in vars(wrapper)


def test_told_to_go_on_it_warns(tmp_path, caplog):
    run(tmp_path, Model("buffer", at=8), StopOnNonFiniteHook(stop=False))
    assert saved(tmp_path) == [2, 4, 6, 8]
    runner = SimpleNamespace(iter=3, hooks=[], logger=logging.getLogger("going on"))
    StopOnNonFiniteHook(stop=False).after_train_iter(runner, 3, None, dict(loss_rpn=math.inf))
    assert caplog.messages == ["step 4 is not finite: loss_rpn is inf [images without paths]"]
    caplog.clear()  # a checkpoint is written all the same, and is not said to be left out
    StopOnNonFiniteHook(stop=False).before_save_checkpoint(runner, dict(state_dict=dict(a=torch.tensor(math.inf))))
    assert caplog.messages == ["step 3: 1 of 1 weights are not finite: a"]


def test_loss_spikes_are_logged_once_with_their_images(caplog):
    hook = StopOnNonFiniteHook(spike_factor=5.0)
    logger = logging.getLogger("spikes")
    runner = SimpleNamespace(iter=0, hooks=[], logger=logger)
    batch = dict(data_samples=[BaseDataElement(metainfo=dict(img_path="odd.jpg"))])
    with caplog.at_level(logging.WARNING, logger="spikes"):
        for step in range(120):
            runner.iter = step
            hook.after_train_iter(runner, step, batch, dict(loss=60.0 if step in (9, 80, 81) else 2.0 + step % 2))
    (message,) = caplog.messages
    assert message == "loss spike in step 81: 60, 24 times the usual 2.5 (median); images: odd.jpg" or (
        message == "loss spike in step 81: 60, 30 times the usual 2 (median); images: odd.jpg"
    )


class Scaled(AmpOptimWrapper):
    """Mixed precision with its real scaler, which mmengine allows on accelerators alone."""

    def __init__(self, optimizer):
        OptimWrapper.__init__(self, optimizer)
        self.loss_scaler = torch.amp.GradScaler("cpu")
        self._scale_update_param = None


def test_gradients_whose_squares_overflow_are_finite():
    weight = nn.Parameter(torch.ones(3))
    runner = SimpleNamespace(model=nn.ParameterList([weight]), iter=0, hooks=[], work_dir="nowhere")
    runner.optim_wrapper = OptimWrapper(torch.optim.SGD([weight], lr=1e-30))
    hook = StopOnNonFiniteHook()
    hook.before_train(runner)
    runner.optim_wrapper.update_params((weight * 1e30).sum())
    hook.after_train_iter(runner, 0, None, dict(loss=1.0))


def test_skipped_steps_of_mixed_precision_are_fine_but_not_for_ever():
    weight = nn.Parameter(torch.ones(3))
    model = nn.Module()
    model.weight = weight
    wrapper = Scaled(torch.optim.SGD([weight], lr=0.1))
    runner = SimpleNamespace(
        model=model, optim_wrapper=wrapper, hooks=[], iter=0, work_dir="nowhere", logger=logging.getLogger("amp")
    )
    hook = StopOnNonFiniteHook()
    hook.before_train(runner)

    def step(factor):
        wrapper.update_params((weight * factor).sum())
        hook.after_train_iter(runner, 0, None, dict(loss=1.0))

    for _ in range(29):
        step(math.inf)
    step(1.0)  # the count begins anew
    assert weight.isfinite().all()
    with pytest.raises(UserError, match=r"1 of 1 parameters: weight, in 30 steps in a row, which were skipped"):
        for _ in range(30):
            step(math.inf)


def test_images_that_are_not_finite_are_named(tmp_path):
    bad = samples()
    bad[7]["inputs"] = torch.tensor([1.0, math.inf])
    hook = StopOnNonFiniteHook()
    runner = SimpleNamespace(iter=3, hooks=[], work_dir=str(tmp_path))
    batch = {key: [sample[key] for sample in bad[6:8]] for key in bad[0]}
    with pytest.raises(UserError, match=r"loss is inf \[images: 6.jpg, 7.jpg; not finite as loaded: 7.jpg\]"):
        hook.after_train_iter(runner, 3, batch, dict(loss=math.inf))


def test_paths_of_batches_of_every_form():
    a, b, nameless = (BaseDataElement(metainfo=x) for x in (dict(img_path="a"), dict(img_path="b"), {}))
    assert image_paths(dict(inputs=[1], data_samples=[a, nameless, b])) == ["a", "b"]
    assert image_paths(dict(data_samples=dict(sup=[a], unsup=[b]))) == ["a", "b"]
    assert image_paths((torch.zeros(1), [b])) == ["b"] and image_paths(None) == []


class Own(Hook):
    pass


def test_every_run_gets_the_guards_that_its_config_lacks():
    config = Config(dict(default_scope="mmdet", custom_hooks=[dict(type="StopOnNonFiniteHook", stop=False)]))
    add_guards(config)
    assert [hook["type"] for hook in config.custom_hooks] == ["StopOnNonFiniteHook", "eyetoy_mm.CheckDetDataHook"]
    add_guards(config)
    assert len(config.custom_hooks) == 2


@pytest.mark.parametrize("hooks", [None, [], [dict(type="EMAHook")], [dict(type=Own)], [Own()]])
def test_hooks_of_any_form_stay_and_are_followed_by_the_guard(hooks):
    config = Config(dict(default_scope="mmengine"))
    config.custom_hooks = hooks
    add_guards(config)
    assert len(config.custom_hooks) == len(hooks or []) + 1
    assert config.custom_hooks[-1] == dict(type="eyetoy_mm.StopOnNonFiniteHook")


TWO_PROCESSES = """
import math, os, sys
from datetime import timedelta
from types import SimpleNamespace
import torch
from mmengine.optim import OptimWrapper
from mmengine.structures import BaseDataElement
from torch.nn.parallel import DistributedDataParallel
from eyetoy_mm.engine.hooks import StopOnNonFiniteHook

rank, meet = 1 if os.fork() == 0 else 0, "file://" + sys.argv[1]
torch.distributed.init_process_group("gloo", meet, rank=rank, world_size=2, timeout=timedelta(seconds=60))


def train(fault):
    model = DistributedDataParallel(torch.nn.Linear(1, 1))
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1), clip_grad=dict(max_norm=1.0))
    runner = SimpleNamespace(model=model, optim_wrapper=wrapper, iter=0, hooks=[], work_dir="nowhere")
    hook = StopOnNonFiniteHook()
    hook.before_train(runner)
    for runner.iter in range(4):
        bad = rank == 1 and runner.iter == 2
        loss = model(torch.ones(1, 1)).sum() * (math.nan if bad and fault == "loss" else 1.0)
        if bad and fault == "gradient":
            loss.register_hook(lambda gradient: gradient * math.nan)
        wrapper.update_params(loss)
        batch = dict(data_samples=[BaseDataElement(metainfo=dict(img_path=f"{rank}-{runner.iter}.jpg"))])
        hook.after_train_iter(runner, runner.iter, batch, dict(loss=loss.detach()))


for fault in ("loss", "gradient"):
    try:
        train(fault)
    except Exception as error:
        print(f"{fault}, process {rank}: {error}", flush=True)
if rank == 0:
    os.wait()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_all_processes_stop_together_and_name_the_rank(tmp_path):
    """Gradients are exchanged: both processes have NaN, and the images of one are to blame where its loss says so."""
    output = program.run_code(TWO_PROCESSES, tmp_path / "meet").stdout
    gradients = "the gradient of 2 of 2 parameters: weight, bias"
    messages = {
        "loss": f"rank 1 of 2: loss is nan; {gradients} [images: 1-2.jpg]. No checkpoint",
        "gradient": f"rank 0, 1 of 2: {gradients} [images: 0-2.jpg, 1-2.jpg]. No checkpoint",
    }
    for fault, message in messages.items():
        for rank in range(2):
            assert f"{fault}, process {rank}: step 3 is not finite: {message}" in output


@pytest.mark.parametrize(
    ("boxes", "shown"),
    [
        ([[0, 0, 5, 5], [128, 0, 128, 0]], "1 of 2 boxes .* the first is 128, 0, 128, 0 "),
        ([[9, 2, 3, 8]], "1 of 1 boxes .* 9, 2, 3, 8 "),
        ([[0, 0, math.nan, 8]], "0, 0, nan, 8 "),
        ([[0, 0, math.inf, 8]], "0, 0, inf, 8 "),
    ],
)
def test_boxes_that_are_none_are_refused_with_their_image(boxes, shown):
    def check(boxes):
        sample = BaseDataElement(metainfo=dict(img_path="crowd.png"), gt_instances=InstanceData(bboxes=boxes))
        CheckDetDataHook().before_train_iter(SimpleNamespace(), 0, dict(data_samples=[sample]))

    check(torch.zeros(0, 4))
    check(torch.tensor([[0.0, 0, 0.5, 3]]))
    check(torch.tensor([[0.0, 0, 0, 0, 0]]))  # rotated: other rules
    for form in (torch.tensor(boxes).float(), SimpleBoxes(torch.tensor(boxes).float())):
        with pytest.raises(UserError, match=f"crowd.png: .*{shown}.*FilterAnnotations"):
            check(form)


class SimpleBoxes:
    """As mmdet's HorizontalBoxes keep them."""

    def __init__(self, tensor):
        self.tensor = tensor

    def __len__(self):
        return len(self.tensor)
