"""A training's checkpoint made a file for others: the same model, and nothing of the machine."""

import hashlib
import re

import numpy as np
import pytest
import torch

pytest.importorskip("mmpretrain")
pytest.importorskip("safetensors")

from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.registry import MODELS, init_default_scope

from eyetoy_mm.cli import main
from eyetoy_mm.compat.safetensors_files import read
from eyetoy_mm.engine.config import load_config
from eyetoy_mm.engine.inference import open_predictor
from eyetoy_mm.engine.publishing import publish
from eyetoy_mm.errors import UserError

CONFIG = """
default_scope = "mmpretrain"
custom_imports = dict(imports=["eyetoy_mm"])
model = dict(
    type="ImageClassifier",
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True, num_classes=3),
    backbone=dict(
        type="eyetoy_mm.NAT", arch=None, embed_dims=8, depths=(1, 1), num_heads=(1, 1), kernel_size=3, mlp_ratio=1,
        out_type="avg_featmap", init_cfg=dict(type="Pretrained", checkpoint="{folder}/start.pth")),
    head=dict(type="LinearClsHead", num_classes=3, in_channels=16),
)
test_pipeline = [
    dict(type="LoadImageFromFile"), dict(type="ResizeEdge", scale=64, edge="short"), dict(type="PackInputs"),
]
work_dir = "{folder}/work"
"""
META = dict(classes=("cat", "dög", "toy"), palette=np.array([[1, 2, 3]] * 3, dtype=np.uint8))


@pytest.fixture
def trained(tmp_path):
    """A config, and the checkpoint that a training leaves."""
    (tmp_path / "nat_cls.py").write_text(CONFIG.replace("{folder}", str(tmp_path)))
    config = load_config(tmp_path / "nat_cls.py")
    init_default_scope("mmpretrain")
    model = MODELS.build(config.model)
    optimizer = torch.optim.AdamW(model.parameters())
    hub = MessageHub("publishing")
    hub.update_scalar("loss", 1.0)
    meta = dict(dataset_meta=META, cfg=config.pretty_text, epoch=2, iter=1200, experiment_name="secret")
    torch.save(
        dict(
            state_dict=model.state_dict(),
            ema_state_dict=model.state_dict(),
            optimizer=optimizer.state_dict(),
            message_hub=hub.state_dict(),
            meta=meta,
        ),
        tmp_path / "epoch_2.pth",
    )
    return config, str(tmp_path / "epoch_2.pth")


def scores(config, checkpoint):
    image = np.random.default_rng(0).integers(0, 256, (70, 80, 3), dtype=np.uint8)
    predictor = open_predictor(config, str(checkpoint), "cpu")
    return predictor.predict(image).pred_score, predictor.dataset_meta


@pytest.mark.parametrize("file_format", ["safetensors", "pth"])
def test_the_file_is_the_model_and_nothing_else(trained, file_format, tmp_path):
    config, checkpoint = trained
    weights, card = publish(config, checkpoint, tmp_path / "out", "nat", file_format)
    again, _ = publish(config, checkpoint, tmp_path / "again", "nat", file_format)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert weights.name == again.name == f"nat-{digest[:8]}.{file_format}" and card.name == f"nat-{digest[:8]}.md"
    assert sorted(path.name for path in weights.parent.iterdir()) == sorted([weights.name, card.name])
    expected, (found, meta) = scores(config, checkpoint)[0], scores(config, weights)
    assert torch.equal(found, expected) and meta["classes"] == META["classes"]
    for content in (weights.read_bytes(), card.read_bytes()):
        assert str(tmp_path).encode() not in content and b"secret" not in content
    loaded = read(weights) if file_format == "safetensors" else torch.load(weights, weights_only=True)
    assert loaded.keys() == {"state_dict", "meta"} and loaded["meta"].keys() == {"dataset_meta"}
    assert loaded["meta"]["dataset_meta"]["palette"] == META["palette"].tolist()


def test_statistics_of_norms_are_no_parameters(tmp_path):
    neck = 'neck=dict(type="LinearNeck", in_channels=16, out_channels=16),'
    text = CONFIG.replace("{folder}", str(tmp_path)).replace("    head=", f"    {neck}\n    head=")
    (tmp_path / "norms.py").write_text(text)
    config = load_config(tmp_path / "norms.py")
    init_default_scope("mmpretrain")
    model = MODELS.build(config.model)
    torch.save(dict(state_dict=model.state_dict(), meta={}), tmp_path / "norms.pth")
    _, card = publish(config, str(tmp_path / "norms.pth"), tmp_path / "out", "norms", "safetensors")
    assert any(key.endswith("running_var") for key in model.state_dict())
    assert f"| parameters | {sum(x.numel() for x in model.parameters()):,}, float32 |" in card.read_text()


def test_the_command_and_its_card(trained, tmp_path, capsys):
    checkpoint = trained[1]
    options = "--name nat_cls-tiny --format pth --half --metrics top1=71.5 top5=90 --licence cc-by-4.0"
    command = ["publish", str(tmp_path / "nat_cls.py"), checkpoint, "--out", str(tmp_path / "out"), *options.split()]
    main([*command, "--cfg-options", "model.head.topk=(1,)"])
    (weights,) = (tmp_path / "out").glob("nat_cls-tiny-*.pth")
    assert f"{weights}: {weights.stat().st_size:,} bytes" in capsys.readouterr().out
    state = torch.load(weights, weights_only=True)["state_dict"]
    assert {x.dtype for x in state.values()} == {torch.float16}
    torch.testing.assert_close(scores(trained[0], weights)[0], scores(*trained)[0], atol=1e-2, rtol=0)
    card = weights.with_suffix(".md").read_text()
    for text in (
        "license: cc-by-4.0",
        "| top1 | 71.5 |",
        "2 epochs, 1,200 iterations, weights averaged (EMA)",
        "3 classes: cat, dög, toy",
        f"eyetoy infer nat_cls.py {weights.name} photo.jpg",
        "type='ResizeEdge'",
        hashlib.sha256(weights.read_bytes()).hexdigest(),
    ):
        assert text in card, card
    assert "init_cfg" not in re.search("```python.*", card, re.DOTALL)[0]


def test_what_cannot_be_published_leaves_nothing(trained, tmp_path):
    config, checkpoint = trained
    content = torch.load(checkpoint, weights_only=False)
    content["state_dict"]["head.fc.weight"][0, 0] = 1e6
    torch.save(content, checkpoint)
    with pytest.raises(UserError, match="1 tensors with values above 65504.*head.fc.weight. Publish it without --half"):
        publish(config, checkpoint, tmp_path / "out", "nat", half=True)
    del content["state_dict"]["head.fc.weight"]
    torch.save(content, checkpoint)
    with pytest.raises(UserError, match="does not fit the model of this config: 1 missing .head.fc.weight."):
        publish(config, checkpoint, tmp_path / "out", "nat")
    for key, message in (
        ("default_scope", "default_scope of the config is None; it must be one of mmseg"),
        ("test_pipeline", "the config does not say how images are prepared"),
    ):
        with pytest.raises(UserError, match=message):
            publish(Config({name: config[name] for name in config if name != key}), checkpoint, tmp_path / "out", "nat")
    with pytest.raises(UserError, match="there is no checkpoint"):
        publish(config, str(tmp_path / "none.pth"), tmp_path / "out", "nat")
    assert not (tmp_path / "out").exists()


def test_a_model_of_the_package_is_called_as_its_file(monkeypatch, tmp_path):
    names = []
    monkeypatch.setattr("eyetoy_mm.engine.publishing.publish", lambda *args: names.append(args[3]) or ())
    main(["publish", "eyetoy_mm::eyetoy_imagenet", "model.pth", "--out", str(tmp_path)])
    assert names == ["eyetoy_imagenet"]  # it was eyetoy_mm::eyetoy_imagenet, which no folder of Windows can hold


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--metrics", "top1"], "--metrics takes NAME=VALUE, got 'top1'"),
        (["--name", "a/b"], "--name 'a/b' should be the name of a model"),
    ],
)
def test_mistakes_of_the_command_line(options, message):
    with pytest.raises(SystemExit, match=message):
        main(["publish", "config.py", "model.pth", "--out", "out", *options])


def test_dataset_meta_of_any_kind_is_plain(trained, tmp_path):
    config, checkpoint = trained
    content = torch.load(checkpoint, weights_only=False)
    content["meta"]["dataset_meta"] = dict(classes=("a",), number=np.float64(3), colours=torch.tensor([[1, 2]]))
    torch.save(content, checkpoint)
    meta = read(publish(config, checkpoint, tmp_path / "out", "nat").weights)["meta"]["dataset_meta"]
    assert meta == dict(classes=["a"], number=3.0, colours=[[1, 2]])
