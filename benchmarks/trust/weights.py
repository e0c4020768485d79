"""Weights that do not fit, and runs that go on with another config: what is said before the first step.

Each case makes its input in an empty folder and runs the package's own functions on it: a classifier of mmpretrain with
a backbone of two blocks, on sixteen random images.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config

from eyetoy_mm.engine.checkpoint import check_fits
from eyetoy_mm.engine.launch import evaluate, train

NAT = dict(type="eyetoy_mm.NAT", arch=None, embed_dims=8, depths=(1, 1), num_heads=(1, 1), kernel_size=3, mlp_ratio=1)
RESNET = dict(type="ResNet", depth=18, out_indices=(3,))


def config(folder: Path, backbone: dict[str, Any] = NAT, channels: int = 16, **changes: Any) -> Config:
    """The config of a run of two epochs of four steps, with its images."""
    import mmcv

    for name in ("ant", "bee"):
        for index in range(8):
            path = folder / "photos" / name / f"{index}.png"
            if not path.exists():
                mmcv.imwrite(np.random.default_rng(index).integers(0, 255, (32, 32, 3), dtype=np.uint8), str(path))
    pipeline = [dict(type="LoadImageFromFile"), dict(type="PackInputs")]
    model = dict(
        type="ImageClassifier",
        backbone=dict(backbone) | (dict(out_indices=(1,)) if backbone["type"] == NAT["type"] else {}),
        neck=dict(type="GlobalAveragePooling"),
        head=dict(type="LinearClsHead", num_classes=2, in_channels=channels, loss=dict(type="CrossEntropyLoss")),
    )
    dataset = dict(type="CustomDataset", data_root=str(folder / "photos"), pipeline=pipeline)
    settings: dict[str, Any] = dict(
        default_scope="mmpretrain",
        custom_imports=dict(imports=["eyetoy_mm", "mmpretrain"]),
        experiment_name=f"trust-{folder.name}-{os.urandom(4).hex()}",
        work_dir=str(folder / "run"),
        model=model,
        data_preprocessor=dict(num_classes=2, mean=[127.0] * 3, std=[60.0] * 3),
        train_dataloader=dict(batch_size=4, num_workers=0, dataset=dataset, sampler=dict(type="DefaultSampler")),
        train_cfg=dict(by_epoch=True, max_epochs=2),
        optim_wrapper=dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=0.01)),
        param_scheduler=[dict(type="PolyLR", end=8, by_epoch=False)],
        default_hooks=dict(checkpoint=dict(type="CheckpointHook", interval=1)),
        randomness=dict(seed=0),
        log_level="INFO",
    )
    return Config(settings | changes)


def saved(folder: Path, content: Any) -> str:
    """A checkpoint file."""
    torch.save(content, path := folder / "weights.pth")
    return str(path)


def log(folder: Path, *starts: str) -> str:
    """Lines of the logs of a run that begin so, and what is indented below them."""
    lines = [line for file in sorted((folder / "run").glob("*/*.log")) for line in file.read_text().splitlines()]
    found, inside = [], False
    for line in lines:
        text = line.split(" - INFO - ")[-1].split(" - WARNING - ")[-1]
        inside = text.startswith(starts) or (inside and line.startswith("  "))
        found += [text] if inside else []
    return "\n".join(found)


@contextmanager
def _of_a_finished_run(folder: Path) -> Iterator[str]:
    train(config(folder))
    yield str(folder / "run" / "epoch_2.pth")


def _longer(**changes: Any) -> dict[str, Any]:
    return dict(train_cfg=dict(by_epoch=True, max_epochs=4)) | changes


# --- Weights ----------------------------------------------------------------------------------------------------------


def nothing_fits(folder: Path) -> None:
    """A file of other names."""
    train(config(folder, load_from=saved(folder, {"state_dict": {"encoder.weight": torch.ones(2)}})))


def heads_alone(folder: Path) -> None:
    """A file of heads."""
    head = {"head.fc.weight": torch.ones(2, 512), "head.fc.bias": torch.ones(2)}
    train(config(folder, RESNET, 512, load_from=saved(folder, {"state_dict": head})))


def another_size(folder: Path) -> None:
    """A file of a deeper model of torchvision's."""
    import torchvision

    train(config(folder, RESNET, 512, load_from=saved(folder, torchvision.models.resnet34().state_dict())))


def torchvisions(folder: Path) -> str:
    """The file of ResNet-18 as torchvision saves it, which fits the backbone."""
    import torchvision

    train(config(folder, RESNET, 512, load_from=saved(folder, torchvision.models.resnet18().state_dict())))
    return log(folder, "loaded ")


def student_and_teacher(folder: Path) -> None:
    """A file of a distillation: two networks."""
    import torchvision

    state = torchvision.models.resnet18().state_dict()
    train(config(folder, RESNET, 512, load_from=saved(folder, {"student": state, "teacher": state, "epoch": 3})))


def of_lightning(folder: Path) -> str:
    """All names behind the prefix of a trainer."""
    import torchvision

    state = {f"model.{key}": x for key, x in torchvision.models.resnet18().state_dict().items()}
    train(config(folder, RESNET, 512, load_from=saved(folder, {"state_dict": state, "epoch": 3})))
    return log(folder, "loaded ")


def another_amsgrad(folder: Path) -> None:
    """A setting of the optimizer for which it needs more than was saved."""
    with _of_a_finished_run(folder):
        amsgrad = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=0.01, amsgrad=True))
        train(config(folder, **_longer(optim_wrapper=amsgrad)), resume="auto")


def not_numbers(folder: Path) -> None:
    """Weights that diverged."""
    from mmengine.registry import MODELS, init_default_scope

    init_default_scope("mmpretrain")
    state = MODELS.build(config(folder).model).state_dict()
    train(config(folder, load_from=saved(folder, {key: x * torch.nan for key, x in state.items()})))


def one_number(change: Callable[[torch.Tensor], torch.Tensor], folder: Path) -> None:
    """Weights of the right names and shapes that are none.

    Args:
        change: Makes of each tensor what is in the file.
        folder: Where the file goes.
    """
    from mmengine.registry import MODELS, init_default_scope

    init_default_scope("mmpretrain")
    state = MODELS.build(config(folder).model).state_dict()
    train(config(folder, load_from=saved(folder, {key: change(x) for key, x in state.items()})))


def variances_below_zero(folder: Path) -> None:
    """Statistics of batch norms that are none, beside weights that are well."""
    import torchvision

    state = torchvision.models.resnet18().state_dict()
    state = {key: -x if key.endswith("running_var") else x for key, x in state.items()}
    train(config(folder, RESNET, 512, load_from=saved(folder, state)))


def damaged(folder: Path) -> None:
    """A file of its full length, of which a piece is missing, as downloads leave it."""
    import torchvision

    path = Path(saved(folder, torchvision.models.resnet18().state_dict()))
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 4096] = bytes(4096)
    path.write_bytes(content)
    train(config(folder, RESNET, 512, load_from=str(path)))


def address(url: str, folder: Path) -> None:
    """An address that leads nowhere."""
    train(config(folder, load_from=url))


def classes_in_another_order(folder: Path) -> None:
    """A checkpoint evaluated on data whose classes have each other's labels."""
    with _of_a_finished_run(folder) as path:
        settings = config(folder)
        settings.test_dataloader = dict(settings.train_dataloader, sampler=dict(type="DefaultSampler", shuffle=False))
        settings.test_dataloader.dataset.classes = ["bee", "ant"]
        settings.test_cfg, settings.test_evaluator = dict(), dict(type="Accuracy")
        evaluate(settings, path)


def no_checkpoint(folder: Path) -> None:
    """A pickle of something else."""
    train(config(folder, load_from=saved(folder, {"epoch": 3, "results": [1.0, 2.0]})))


def tested_with_a_backbones_file(folder: Path) -> None:
    """A backbone's file for ``eyetoy test``."""
    from mmengine.registry import MODELS, init_default_scope

    init_default_scope("mmpretrain")
    model: Any = MODELS.build(config(folder).model)
    check_fits(model, saved(folder, model.backbone.state_dict()))


def normalised_otherwise(folder: Path) -> str:
    """The weights of a run, and a config without its mean and std."""
    with _of_a_finished_run(folder) as weights:
        settings = config(folder, load_from=weights, data_preprocessor=dict(num_classes=2))
    train(settings)
    return log(folder, weights)


# --- Safetensors files ------------------------------------------------------------------------------------------------


def opened(damage: Callable[[dict[str, torch.Tensor]], bytes], how: str, folder: Path) -> None:
    """A damaged file, opened as one of the places that take a checkpoint does.

    Args:
        damage: Makes the bytes of the file of the model's own weights.
        how: ``load_from``, ``test``, ``init_cfg`` or ``get_model``.
        folder: Where the file goes.
    """
    from mmengine.registry import MODELS, init_default_scope
    from mmpretrain.apis import get_model

    init_default_scope("mmpretrain")
    model: Any = MODELS.build(config(folder).model)
    path = folder / "weights.safetensors"
    path.write_bytes(damage(model.state_dict()))
    if how == "load_from":
        train(config(folder, load_from=str(path)))
    elif how == "test":
        check_fits(model, str(path))
    elif how == "init_cfg":
        model.backbone.init_cfg = dict(type="Pretrained", checkpoint=str(path))
        model.init_weights()
    else:
        get_model(config(folder), pretrained=str(path), device="cpu")


def _safetensors(state: dict[str, torch.Tensor], **header: Any) -> bytes:
    """A file, of which the entry of one tensor in the header is changed."""
    from safetensors.torch import save

    whole = save({name: x.contiguous() for name, x in state.items()})
    size = int.from_bytes(whole[:8], "little")
    entries = json.loads(whole[8 : 8 + size])
    entries[LIED_ABOUT] |= header
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + whole[8 + size :]


LIED_ABOUT = "backbone.levels.0.blocks.0.attn.qkv.weight"


def _changed(state: dict[str, torch.Tensor], change: Callable[[torch.Tensor], torch.Tensor | None]) -> bytes:
    """A file, of which one tensor is another, or left out where it becomes None."""
    from safetensors.torch import save

    tensors = {name: change(x) if name == LIED_ABOUT else x for name, x in state.items()}
    return save({name: x.contiguous() for name, x in tensors.items() if x is not None})


SAFETENSORS: dict[str, tuple[str, Callable[[dict[str, torch.Tensor]], bytes]]] = {
    "load_from: a safetensors file cut short": ("load_from", lambda state: _safetensors(state)[:-100]),
    "load_from: a safetensors file cut in its header": ("load_from", lambda state: _safetensors(state)[:400]),
    "test: a header of 4 EiB": ("test", lambda state: (1 << 62).to_bytes(8, "little") + _safetensors(state)[8:]),
    "init_cfg: tensors beyond the file": ("init_cfg", lambda state: _safetensors(state, data_offsets=[0, 1 << 20])),
    "get_model: tensors one over another": ("get_model", lambda state: _safetensors(state, data_offsets=[0, 768])),
    "test: a shape that is not that of the bytes": ("test", lambda state: _safetensors(state, shape=[3, 3])),
    "init_cfg: a type of numbers that does not exist": ("init_cfg", lambda state: _safetensors(state, dtype="F7")),
    "load_from: whole numbers for weights": ("load_from", lambda state: _changed(state, lambda x: x.long())),
    "get_model: NaN in a safetensors file": ("get_model", lambda state: _changed(state, lambda x: x * torch.nan)),
    "init_cfg: a weight is missing": ("init_cfg", lambda state: _changed(state, lambda x: None)),
    "test: a weight of another shape": ("test", lambda state: _changed(state, lambda x: x[:1])),
    "load_from: a pointer of Git LFS": ("load_from", lambda state: b"version https://git-lfs.github.com/spec/v1\n"),
}

# --- Runs that go on --------------------------------------------------------------------------------------------------


def first_start(folder: Path) -> str:
    """``--resume`` where there is nothing yet, with ``load_from``."""
    with _of_a_finished_run(folder) as weights:
        settings = config(folder, load_from=weights, work_dir=str(folder / "next"))
    train(settings, resume="auto")
    (folder / "next").rename(folder / "run" / "next")
    return "\n".join(
        line.split(" - INFO - ")[-1]
        for file in (folder / "run" / "next").glob("*/*.log")
        for line in file.read_text().splitlines()
        if "nothing to resume" in line or "INFO - loaded " in line
    )


def longer_schedule(folder: Path) -> str:
    """Twice the epochs, in training and schedule."""
    with _of_a_finished_run(folder):
        train(config(folder, param_scheduler=[dict(type="PolyLR", end=16, by_epoch=False)], **_longer()), resume="auto")
    return log(folder, "resume from", "Epoch(train) [4]")


def longer_training_alone(folder: Path) -> None:
    """Twice the epochs, and the schedule as it was."""
    with _of_a_finished_run(folder):
        train(config(folder, **_longer()), resume="auto")


def another_batch_size(folder: Path) -> str:
    """Half of the images in a step, another seed and weight decay."""
    with _of_a_finished_run(folder):
        settings = config(
            folder,
            **_longer(
                param_scheduler=[dict(type="PolyLR", end=32, by_epoch=False)],
                optim_wrapper=dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=0.01, weight_decay=0.2)),
                randomness=dict(seed=1),
            ),
        )
        settings.train_dataloader.batch_size = 2
        train(settings, resume="auto")
    return log(folder, "resume from")


def another_optimizer(folder: Path) -> None:
    """SGD after AdamW."""
    with _of_a_finished_run(folder):
        sgd = dict(type="OptimWrapper", optimizer=dict(type="SGD", lr=0.01))
        train(config(folder, **_longer(optim_wrapper=sgd)), resume="auto")


def other_classes(folder: Path) -> None:
    """A class that is called otherwise."""
    with _of_a_finished_run(folder):
        settings = config(folder, **_longer())
        (folder / "photos" / "bee").rename(folder / "photos" / "wasp")
        train(settings, resume="auto")


def broken_averages(folder: Path) -> None:
    """An optimizer whose averages of gradients are NaN, beside weights that are well."""
    with _of_a_finished_run(folder) as path:
        checkpoint = torch.load(path, weights_only=False)
        checkpoint["optimizer"]["state"][0]["exp_avg"].fill_(torch.nan)
        torch.save(checkpoint, path)
        train(config(folder, **_longer()), resume=path)


def iterations_then_epochs(folder: Path) -> str:
    """A run by iterations that goes on by epochs."""
    hook = dict(checkpoint=dict(type="CheckpointHook", interval=8, by_epoch=False))
    train(config(folder, train_cfg=dict(by_epoch=False, max_iters=8), default_hooks=hook))
    train(config(folder, param_scheduler=[dict(type="PolyLR", end=16, by_epoch=False)], **_longer()), resume="auto")
    return log(folder, "resume from", "Epoch(train) [4]")


def weights_alone(folder: Path) -> None:
    """``--resume`` with a file that has no training state."""
    with _of_a_finished_run(folder) as path:
        state = torch.load(path, weights_only=False)["state_dict"]
        train(config(folder, **_longer()), resume=saved(folder, state))


def last_checkpoint_is_gone(folder: Path) -> str:
    """The file that ``last_checkpoint`` names was deleted."""
    with _of_a_finished_run(folder) as path:
        Path(path).unlink()
        train(config(folder), resume="auto")
    return log(folder, "resume from")


def all_checkpoints_are_gone(folder: Path) -> None:
    """Every file of the work dir was deleted."""
    with _of_a_finished_run(folder):
        for path in (folder / "run").glob("*.pth"):
            path.unlink()
        train(config(folder), resume="auto")


CASES: dict[str, Callable[[Path], Any]] = {
    "load_from: nothing of it fits": nothing_fits,
    "load_from: heads alone": heads_alone,
    "load_from: of a deeper model": another_size,
    "load_from: torchvision's file": torchvisions,
    "load_from: student and teacher in one file": student_and_teacher,
    "load_from: behind a trainer's prefix": of_lightning,
    "load_from: NaN": not_numbers,
    "load_from: zeros": partial(one_number, torch.zeros_like),
    "load_from: numbers larger than any": partial(one_number, lambda x: torch.full_like(x.float(), 1e30)),
    "load_from: variances below zero": variances_below_zero,
    "load_from: a piece is missing in the middle": damaged,
    "load_from: a name of torchvision's that is none": partial(address, "torchvision://resnet999"),
    "load_from: file://": partial(address, "file:///weights/resnet18.pth"),
    "load_from: a misspelt scheme": partial(address, "htps://host/resnet18.pth"),
    "load_from: not a checkpoint": no_checkpoint,
    **{name: partial(opened, damage, how) for name, (how, damage) in SAFETENSORS.items()},
    "test: a backbone's file": tested_with_a_backbones_file,
    "test: classes in another order": classes_in_another_order,
    "load_from: images normalised otherwise": normalised_otherwise,
    "--resume on a first start, with load_from": first_start,
    "--resume: a longer schedule": longer_schedule,
    "--resume: longer training, the schedule as it was": longer_training_alone,
    "--resume: another batch size, seed and weight decay": another_batch_size,
    "--resume: another optimizer": another_optimizer,
    "--resume: the optimizer with amsgrad": another_amsgrad,
    "--resume: other classes": other_classes,
    "--resume: weights alone": weights_alone,
    "--resume: averages of gradients that are NaN": broken_averages,
    "--resume: iterations that go on as epochs": iterations_then_epochs,
    "--resume: the last checkpoint is gone": last_checkpoint_is_gone,
    "--resume: all checkpoints are gone": all_checkpoints_are_gone,
}
