"""What is in a checkpoint, how it differs from a model, and versions of names through every way to save and load."""

import copy
import re
from collections import OrderedDict

import pytest
import torch
from mmengine.model import BaseModel, ExponentialMovingAverage
from mmengine.registry import MODELS
from mmengine.runner import Runner, load_checkpoint, save_checkpoint, weights_to_cpu
from torch import nn

import eyetoy_mm  # noqa: F401 - first: makes mmengine's loaders safe
from eyetoy_mm.backbones.pretrained import read_state
from eyetoy_mm.backbones.staged import StagedBackbone
from eyetoy_mm.compat.checkpoint_loading import CheckpointError
from eyetoy_mm.engine.checkpoint import check_fits
from eyetoy_mm.errors import UserError
from eyetoy_mm.state_dicts import compare, meta_of, migrated, split, unwrap, version

STATE = {"backbone.a": torch.zeros(2), "head.b": torch.zeros(3)}


@pytest.mark.parametrize(
    "loaded",
    [
        STATE,
        {"state_dict": STATE, "meta": {}},
        {"model": STATE, "epoch": 3},
        {"model": {f"module.{key}": x for key, x in STATE.items()}},
        {"state_dict": {"model": STATE}},
    ],
)
def test_what_trainers_wrap_around_tensors_is_taken_off(loaded):
    assert unwrap(loaded, "x.pth") == STATE


@pytest.mark.parametrize(
    ("loaded", "message"),
    [
        ([1, 2], "x.pth: not a dict of named tensors but list"),
        ({}, "x.pth has no tensors"),
        ({"state_dict": {}}, "x.pth has no tensors"),
        ({"a": {"x": torch.zeros(1)}, "b": {"x": torch.zeros(1)}}, "tensors behind 'a', 'b', and nothing says which"),
        ({"epoch": 3, "a": torch.zeros(1)}, "x.pth: epoch should be tensors with a name"),
        ({7: torch.zeros(1)}, "7 should be tensors"),
    ],
)
def test_what_is_no_checkpoint_is_named(loaded, message):
    with pytest.raises(CheckpointError, match=message):
        unwrap(loaded, "x.pth")


@pytest.mark.parametrize(
    ("meta", "left"),
    [
        (dict(epoch=3, dataset_meta=dict(classes=["a"], palette=None)),) * 2,
        (dict(CLASSES=("a",)),) * 2,
        (dict(dataset_meta=dict(classes=None)),) * 2,
        (dict(epoch=3, dataset_meta=dict(classes=3)), dict(epoch=3)),
        (dict(epoch=3, dataset_meta=dict(classes="ab")), dict(epoch=3)),
        (dict(epoch=3, dataset_meta=["a"]), dict(epoch=3)),
        (dict(epoch=3, CLASSES="ab"), dict(epoch=3)),
        ("text", {}),
        (None, {}),
    ],
)
def test_what_a_checkpoint_says_of_its_classes_is_names_or_nothing(meta, left):
    assert meta_of({"state_dict": STATE, "meta": meta}) == left


@pytest.mark.parametrize("prefix", [None, "backbone", "backbone."])
def test_a_backbones_part(prefix):
    assert split(STATE, prefix) == ({"a": STATE["backbone.a"]}, {"head.b": STATE["head.b"]})
    assert split({"a": STATE["backbone.a"]}) == ({"a": STATE["backbone.a"]}, {})
    assert split(STATE, "neck") == ({}, STATE)


def test_a_difference_is_a_text_and_false_where_there_is_none():
    wanted = {f"w{i}": torch.zeros(2) for i in range(10)} | {"b": torch.zeros(2, 3)}
    assert not compare(wanted, wanted) and str(compare(wanted, wanted)) == ""
    difference = compare({"b": torch.zeros(3, 2), "x": torch.zeros(1)}, wanted)
    assert difference and str(difference) == (
        "10 missing (w0, w1, w2, w3, w4, w5, w6, w7 and 2 more); 1 not in the model (x); "
        "1 of another shape (b (3, 2) for (2, 3))"
    )


# --- Versions ---------------------------------------------------------------------------------------------------------


class Before(StagedBackbone):
    """One stage, whose layer is called ``stage``."""

    stem_module, name = "patch", "stage"

    def __init__(self, **more):
        super().__init__([4], [2], **more)
        self.patch = nn.Conv2d(3, 4, 2, 2)
        self.add_module(self.name, nn.Linear(4, 4))
        self.finish()

    def stage_modules(self, stage):
        return [self.name]

    def forward_stages(self, x):
        yield self.get_submodule(self.name)(self.patch(x).permute(0, 2, 3, 1)), None


class After(Before):
    """A later version of it: the layer has another name."""

    _version, name = 2, "block"

    @classmethod
    def migrate(cls, own, version):
        if version < 2:
            own = {re.sub(r"^stage\.", "block.", key): x for key, x in own.items()}
        return own


class Model(BaseModel):
    def __init__(self, backbone):
        super().__init__()
        self.backbone, self.head = backbone, nn.Linear(4, 2)

    def forward(self, *images, mode):
        (features,) = self.backbone(torch.stack(images))
        return dict(loss=self.head(features.mean(dim=(2, 3))).square().mean())


def train_one_step(model, folder, **more):
    """As users do, by a Runner."""
    images = dict(dataset=torch.randn(2, 3, 8, 8), batch_size=2, sampler=dict(type="DefaultSampler", shuffle=False))
    more |= dict(train_dataloader=images, train_cfg=dict(by_epoch=True, max_epochs=more.pop("epochs", 1)))
    more |= dict(optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.1)), experiment_name=str(folder))
    runner = Runner(model, str(folder), log_level="ERROR", **more)
    runner.train()
    return str(folder / "epoch_1.pth")


def versions_lost(state):
    """As mmengine's `Pretrained` with a prefix does, and others who take a state dict for a dict."""
    return OrderedDict(state)


def test_versions_stay_in_what_mmengine_saves_and_loads(tmp_path):
    model = Model(After())
    assert version(split(model.state_dict())[0]) == After._version
    save_checkpoint(dict(state_dict=weights_to_cpu(model.state_dict())), str(tmp_path / "saved.pth"))
    plain = train_one_step(model, tmp_path / "plain")
    averaged = train_one_step(Model(After()), tmp_path / "averaged", custom_hooks=[dict(type="EMAHook")])
    for path in (str(tmp_path / "saved.pth"), plain, averaged):
        own, _ = split(read_state(path))
        assert version(own) == 2, path
    ema = ExponentialMovingAverage(model).state_dict()
    assert version(split(unwrap({k: x for k, x in ema.items() if k != "steps"}, "ema"))[0]) == 1  # a dict has none
    ema.pop("steps")
    assert version(split(unwrap(ema, "ema"))[0]) == 2


@pytest.mark.parametrize("lose", [lambda state: state, versions_lost], ids=["as saved", "without versions"])
def test_an_earlier_version_is_brought_along_by_every_way_to_load(tmp_path, lose):
    old = Model(Before())
    path = str(tmp_path / "old.pth")
    torch.save(dict(state_dict=lose(old.state_dict())), path)
    expected = old.backbone.stage.weight

    def assert_loaded(model):
        assert torch.equal(model.backbone.block.weight, expected)

    by_torch = Model(After())
    by_torch.load_state_dict(torch.load(path)["state_dict"])
    assert_loaded(by_torch)
    by_mmengine = Model(After())
    load_checkpoint(by_mmengine, path, strict=True)
    assert_loaded(by_mmengine)
    check_fits(Model(After()), path)
    for prefix in (None, "backbone."):
        pretrained = Model(After(init_cfg=dict(type="Pretrained", checkpoint=path, prefix=prefix)))
        pretrained.init_weights()
        assert_loaded(pretrained)
    assert set(migrated(read_state(path), by_torch)) == set(by_torch.state_dict())
    torch.save(lose(old.backbone.state_dict()), path)
    alone = After(init_cfg=dict(type="Pretrained", checkpoint=path))
    alone.init_weights()
    assert torch.equal(alone.block.weight, expected)


@pytest.mark.parametrize("lose", [lambda state: state, versions_lost], ids=["as saved", "without versions"])
def test_todays_version_is_loaded_as_it_is(tmp_path, lose):
    source = Model(After())
    torch.save(dict(state_dict=lose(source.state_dict())), tmp_path / "new.pth")
    target = Model(After(init_cfg=dict(type="Pretrained", checkpoint=str(tmp_path / "new.pth"))))
    target.init_weights()
    check_fits(target, str(tmp_path / "new.pth"))
    assert torch.equal(target.backbone.block.weight, source.backbone.block.weight)


def test_a_runner_resumes_from_an_earlier_version(tmp_path):
    path = train_one_step(Model(Before()), tmp_path / "before")
    model = Model(After())
    train_one_step(model, tmp_path / "after", load_from=path, resume=True)
    assert torch.equal(model.backbone.block.weight, torch.load(path)["state_dict"]["backbone.stage.weight"])


def test_a_model_that_does_not_fit_is_told_in_the_same_words(tmp_path):
    state = copy.copy(Model(Before()).state_dict())
    state["backbone.other"] = state.pop("backbone.patch.bias")
    torch.save(state, tmp_path / "x.pth")
    words = r"1 missing \(backbone.patch.bias\); 1 not in the model \(backbone.other\)"
    with pytest.raises(UserError, match=rf"x.pth does not fit the model of this config: {words}. Is it from another"):
        check_fits(Model(Before()), str(tmp_path / "x.pth"))
    backbone = Before(init_cfg=dict(type="Pretrained", checkpoint=str(tmp_path / "x.pth")))
    with pytest.raises(CheckpointError, match=r"does not fit this Before, .*: 1 missing \(patch.bias\); 1 not in the"):
        backbone.init_weights()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_model_with_no_numbers_is_told(value, tmp_path):
    state = copy.copy(Model(Before()).state_dict())
    state["backbone.patch.bias"] = torch.full_like(state["backbone.patch.bias"], value)
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(UserError, match="x.pth has 1 tensors that cannot be weights: backbone.patch.bias: NaN"):
        check_fits(Model(Before()), str(tmp_path / "x.pth"))


@pytest.mark.parametrize("name", ["EyeToy", "NAT"])
def test_a_classifiers_head_beside_a_backbone_is_left_out(name, tmp_path):
    settings = dict(
        EyeToy=dict(type="eyetoy_mm.EyeToy", arch=dict(type="demo", register_tokens=2)),
        NAT=dict(type="eyetoy_mm.NAT", arch=None, embed_dims=8, depths=(1, 1), num_heads=(2, 2), mlp_ratio=2),
    )[name]
    state = MODELS.build(settings).state_dict()
    torch.save({**state, "head.fc.weight": torch.zeros(2, 8)}, tmp_path / "classifier.pth")
    settings["init_cfg"] = dict(type="Pretrained", checkpoint=str(tmp_path / "classifier.pth"))
    backbone = MODELS.build(settings)
    backbone.init_weights()
    for key, x in backbone.state_dict().items():
        torch.testing.assert_close(x, state[key])
