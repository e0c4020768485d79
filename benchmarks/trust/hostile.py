"""Files that were made to do harm, and what our public code says of them.

A case gets an empty folder, makes the file and opens it as a user would. Every payload would write ``ran`` into that
folder; :func:`has_run` says whether one did.
"""

from __future__ import annotations

import functools
import io
import json
import pickle
import struct
import tarfile
import types
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import eyetoy_mm  # noqa: F401 - before mmengine and mmcv: their loaders
from eyetoy_mm.engine.checkpoint import check_last_checkpoint
from eyetoy_mm.engine.plain_config import read_plain
from eyetoy_mm.engine.preprocessing import read_image


def has_run(folder: Path) -> bool:
    return (folder / "ran").exists()


# --- Payloads -------------------------------------------------------------------------------------------------------


class Call:
    """Pickled as a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


class Built:
    """Pickled as an object of a harmless class that gets a state afterwards."""

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...], state: Any) -> None:
        self.parts = function, arguments, state

    def __reduce__(self) -> tuple[Any, ...]:
        return self.parts


def code(folder: Path) -> str:
    return f"open({str(folder / 'ran')!r}, 'w').close()"


def system(folder: Path) -> Call:
    import os

    return Call(os.system, f"touch {folder / 'ran'}")


def payloads(folder: Path) -> dict[str, Any]:
    """Objects that run something when they are unpickled without care."""
    inner = io.BytesIO()
    torch.save(system(folder), inner)
    objects = np.empty(1, dtype=object)
    objects[0] = system(folder)
    from mmengine.config import Config
    from mmengine.logging import HistoryBuffer

    return {
        "os.system": system(folder),
        "eval": Call(eval, code(folder)),
        "exec": Call(exec, code(folder)),
        "open for writing": Call(open, str(folder / "ran"), "w"),
        "partial": Call(functools.partial(eval, code(folder))),
        "in an array of objects": objects,
        "file in the file": Call(torch.storage._load_from_bytes, inner.getvalue()),
        "getattr of an allowed class": Call(getattr, HistoryBuffer, "__init__"),
        "state of an allowed class": Built(HistoryBuffer, (), {"statistics_methods": {"mean": system(folder)}}),
        "a config": Config(dict(model=dict(type="x"))),
        "a function's code": types.SimpleNamespace(run=system(folder)),
    }


PLACES: dict[str, Callable[[Any], dict[str, Any]]] = {
    "state_dict": lambda x: {"state_dict": {"weight": x}},
    "meta": lambda x: {"state_dict": {}, "meta": {"cfg": x}},
    "optimizer": lambda x: {"state_dict": {}, "optimizer": {"state": {0: x}}},
    "message_hub": lambda x: {"state_dict": {}, "message_hub": {"runtime_info": {"a": [x]}}},
}


def saved(folder: Path, payload: Any, place: str = "meta", **options: Any) -> str:
    path = folder / "hostile.pth"
    torch.save(PLACES[place](payload), path, **options)
    return str(path)


def tampered(folder: Path) -> str:
    """A checkpoint as torch writes it, whose pickle was replaced afterwards."""
    path = folder / "hostile.pth"
    torch.save({"state_dict": {"weight": torch.ones(2)}}, path)
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            content = pickle.dumps(system(folder), protocol=2) if name.endswith("data.pkl") else content
            archive.writestr(name, content)
    return str(path)


def inflated(folder: Path, megabytes: int) -> str:
    """A small checkpoint that is read: its only tensor is compressed."""
    path = folder / "hostile.pth"
    torch.save({"state_dict": {"weight": torch.zeros(megabytes << 18)}}, path)
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return str(path)


def old_tar(folder: Path) -> str:
    """The format of torch before 0.1.10: a tar of pickles."""
    path = folder / "hostile.pth"
    with tarfile.open(path, "w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            content = pickle.dumps(system(folder), protocol=2)
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return str(path)


def legacy_zip(folder: Path) -> str:
    """As torch.hub downloads them: a zip with one file, which would be extracted over another."""
    torch.save(system(folder), inner := io.BytesIO())
    path = folder / "hostile.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../ran", inner.getvalue())
    return str(path)


def bare_pickle(folder: Path) -> str:
    path = folder / "hostile.pkl"
    path.write_bytes(pickle.dumps([system(folder)]))
    return str(path)


def png_of_zeros(path: Path, width: int, height: int, rows: int | None = None) -> Path:
    """A picture of zeros: a bit each, compressed; cut short after some rows, if these are given."""
    row = b"\0" * (1 + (width + 7) // 8)
    compressor = zlib.compressobj(9)
    body = b"".join(compressor.compress(row) for _ in range(height if rows is None else rows)) + compressor.flush()

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    return path


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


# --- Ways in --------------------------------------------------------------------------------------------------------


def load_checkpoint(path: str) -> object:
    from mmengine.runner import load_checkpoint

    return load_checkpoint(torch.nn.Linear(1, 1), path)


def init_swin(path: str) -> object:
    """The Pretrained of mmengine, for backbones that are not ours."""
    from mmengine.model import PretrainedInit

    return PretrainedInit(path)(torch.nn.Linear(1, 1))


def init_eyetoy(path: str) -> None:
    from eyetoy_mm.backbones import EyeToy

    EyeToy(arch="demo", init_cfg=dict(type="Pretrained", checkpoint=path)).init_weights()


def convert(path: str) -> object:
    from eyetoy_mm.engine.conversion import convert

    return convert(path, Path(path).with_name("converted.pth"))


def load_data(path: str) -> object:
    from mmengine import fileio

    return fileio.load(path)


def from_weights_alone(path: str) -> object:
    """An inferencer that takes its config from the checkpoint."""
    from mmengine.infer import BaseInferencer

    return BaseInferencer._init_model(types.SimpleNamespace(), {}, path)


WAYS: dict[str, Callable[[str], object]] = {
    "load_from": load_checkpoint,
    "init_cfg of mmengine": init_swin,
    "init_cfg of EyeToy": init_eyetoy,
    "eyetoy convert": convert,
}


def resume_elsewhere(folder: Path) -> None:
    from mmengine.config import Config

    work_dir = folder / "work_dir"
    work_dir.mkdir()
    other = saved(folder, 1)
    (work_dir / "last_checkpoint").write_text(other)
    check_last_checkpoint(Config(dict(work_dir=str(work_dir), resume=True)))


def config_in_checkpoint(folder: Path) -> None:
    from_weights_alone(saved(folder, f"import os\n{code(folder)}\nmodel = dict(type='x')"))


def deep_json(folder: Path) -> None:
    from eyetoy_mm.datasets.coco_files import check_coco_file

    check_coco_file(written(folder / "deep.json", "[" * 100_000), "train", ("a",), {})


def names_outside(folder: Path) -> object:
    from eyetoy_mm.datasets.outside import find_outside

    return find_outside("train.json", str(folder), ["a.jpg", "../../etc/passwd", "/etc/passwd", "b/../c.jpg"])


YAML_BOMB = "\n".join(["a0: &a0 [x, x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12))])

CASES: dict[str, Callable[[Path], object]] = {
    "checkpoint that calls os.system": lambda folder: load_checkpoint(saved(folder, system(folder))),
    "checkpoint with code in its optimizer": lambda folder: load_checkpoint(
        saved(folder, Call(eval, code(folder)), "optimizer")
    ),
    "checkpoint with an object in an array": lambda folder: load_checkpoint(
        saved(folder, payloads(folder)["in an array of objects"], "message_hub")
    ),
    "checkpoint that unpickles a file in the file": lambda folder: load_checkpoint(
        saved(folder, payloads(folder)["file in the file"])
    ),
    "checkpoint with a Config in meta": lambda folder: load_checkpoint(saved(folder, payloads(folder)["a config"])),
    "checkpoint whose data.pkl was replaced": lambda folder: load_checkpoint(tampered(folder)),
    "checkpoint of torch before 0.1.10 (tar)": lambda folder: load_checkpoint(old_tar(folder)),
    "checkpoint that is compressed": lambda folder: load_checkpoint(inflated(folder, 1025)),
    "bare pickle as init_cfg": lambda folder: init_eyetoy(bare_pickle(folder)),
    "code as the config in a checkpoint": config_in_checkpoint,
    "last_checkpoint that points elsewhere": resume_elsewhere,
    "annotations that are a pickle": lambda folder: load_data(bare_pickle(folder)),
    "YAML with !!python/object/apply": lambda folder: load_data(
        str(written(folder / "hostile.yaml", f"a: !!python/object/apply:os.system ['touch {folder / 'ran'}']"))
    ),
    "YAML of aliases of aliases": lambda folder: load_data(str(written(folder / "bomb.yaml", YAML_BOMB))),
    "config that runs something, shown": lambda folder: read_plain(
        written(folder / "config.py", f"import os\n{code(folder)}")
    ),
    "config whose _base_ runs something, shown": lambda folder: read_plain(
        written(folder / "config.py", f"_base_ = {code(folder)}")
    ),
    "annotations of 100,000 nested lists": deep_json,
    "image of 50,000 x 50,000 pixels": lambda folder: read_image(png_of_zeros(folder / "bomb.png", 50_000, 50_000)),
    "annotations that name files outside": names_outside,
}


def main() -> None:
    import tempfile

    for name, case in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            try:
                message = str(case(Path(folder)))
            except Exception as error:
                message = f"{type(error).__name__}: {error}"
            print(json.dumps({name: message.replace(folder, "FOLDER"), "ran": has_run(Path(folder))}))


if __name__ == "__main__":
    main()
