"""Studies: variants of a model and seeds under one recipe, read from a Python file, and what they cost on paper.

A study is a file of plain values with a docstring that says what is asked::

    base = "segformer-head_eyetoy-2.2m_b8-200e_camvid"     # a config: name, or file from here or from the study
    recipe = {"train_cfg.max_iters": 2000}                 # settings of every variant, as --cfg-options has them
    variants = {                                           # settings of each, which may have a "base" of their own
        "multi-scale": {},
        "single-scale": {"model.backbone.arch.multi_scale": False},
    }
    seeds = [0, 1, 2]
    metric = "mIoU"                                        # as evaluations log it; more is better
    image = (360, 480)                                     # height and width, at which FLOPs are counted

Other names in the file are its own. The first variant is what the others are held against: as many steps of as many
images, and, if ``tolerance`` (0.05 by default) is not None, FLOPs that differ by that much at most.
"""

from __future__ import annotations

import ast
import copy
import gc
import itertools
import re
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from eyetoy_mm.engine.config import load_config, read_config
from eyetoy_mm.engine.config_checks import check_config
from eyetoy_mm.engine.config_places import nearest
from eyetoy_mm.engine.data_checks import check_data
from eyetoy_mm.engine.model_table import complexity
from eyetoy_mm.errors import UserError
from eyetoy_mm.registry import type_name
from eyetoy_mm.tables import markdown_table

# Settings of loaders that PyTorch refuses where there are no workers, or that mean nothing there.
_OF_WORKERS = ("num_workers", "persistent_workers", "prefetch_factor", "timeout", "multiprocessing_context")
_KEYS = {"base", "recipe", "variants", "seeds", "metric", "image", "tolerance"}
_REQUIRED = {"variants", "seeds", "metric", "image"}


@dataclass(frozen=True)
class Length:
    """How long a config trains: ``steps`` is the last step of its evaluations, an iteration or an epoch."""

    steps: int
    by_epoch: bool
    batch_size: int

    def __str__(self) -> str:
        return f"{self.steps} {'epochs' if self.by_epoch else 'iterations'} of {self.batch_size} images"


@dataclass(frozen=True)
class Study:
    """What is compared.

    Attributes:
        name: The name of its file.
        question: Its docstring.
        variants: The config of each variant by its name, the first to hold the others against.
        seeds: Of the runs of each.
        metric: Key of an evaluation; more is better.
        image: Height and width at which FLOPs are counted.
        tolerance: The largest share by which FLOPs may differ from those of the first variant, None for any.
        length: Of every run.
    """

    name: str
    question: str
    variants: Mapping[str, Config]
    seeds: Sequence[int]
    metric: str
    image: tuple[int, int]
    tolerance: float | None
    length: Length

    def runs(self) -> list[tuple[str, int]]:
        """Variant and seed of each run, seed by seed: what is cut off leaves the variants with as many seeds."""
        return [(variant, seed) for seed in self.seeds for variant in self.variants]


@dataclass(frozen=True)
class Cost:
    """What a variant costs: parameters, FLOPs of an image, and seconds of a training step where they were measured."""

    parameters: int
    flops: int
    seconds: float | None = None


def read_study(path: Path, data_root: str | None = None) -> Study:
    """Read a study, and load the config of every variant.

    Args:
        path: Its file.
        data_root: Folder of the data set, in place of the configs' own.

    Raises:
        UserError: It has keys that a study has not, lacks some, has others than can be read, names variants or seeds
            twice, a config does not load or is not evaluated at its end, or variants train for another number of steps
            or images.
    """
    if not path.is_file():
        raise UserError(f"there is no study {path}")
    if path.suffix != ".py":
        raise UserError(f"a study is a Python file, and {path} is none by its name")
    given = read_config(path).to_dict()
    meant = {key: nearest(key, _KEYS, cutoff=0.8) for key in given if key not in _KEYS}
    if misspelt := [f"{key} (is it {name}?)" for key, name in meant.items() if name]:
        raise UserError(f"{path} has {', '.join(misspelt)}, which a study does not read")
    if missing := sorted(key for key in _REQUIRED if not given.get(key)):
        raise UserError(f"{path} needs {', '.join(missing)}")
    if wrong := list(_misfits(given)):
        raise UserError(f"{path}: {'; '.join(wrong)}")
    variants = {name: _variant(path, given, name, data_root) for name in given["variants"]}
    lengths = {name: _length(config) for name, config in variants.items()}
    first = next(iter(lengths.values()))
    if others := {name: length for name, length in lengths.items() if length != first}:
        told = "; ".join(f"{name}: {length}" for name, length in others.items())
        raise UserError(f"{path}: variants are to train alike, and the first trains for {first}, but {told}")
    question = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or path.stem
    return Study(
        path.stem,
        question,
        variants,
        list(given["seeds"]),
        given["metric"],
        tuple(given["image"]),
        given.get("tolerance", 0.05),
        first,
    )


def slug(name: str) -> str:
    """The name of a variant as that of a folder; nothing where it has neither letters nor digits."""
    return re.sub(r"(?:[^\w.]|_)+", "-", name.lower()).strip("-.")


def measure_costs(study: Study, timed_steps: int = 0) -> dict[str, Cost]:
    """Parameters and FLOPs of every variant, and how long a step of its training takes here.

    Args:
        study: The study.
        timed_steps: How many steps are timed, on the first images of its data, after one that is not; 0 for none.

    Raises:
        UserError: A variant cannot be built or trained; the message says which.
    """
    costs = {}
    for name, config in study.variants.items():
        try:
            seconds = time_steps(config, timed_steps) if timed_steps else None
            parameters, flops = complexity(config, *study.image)
        except UserError as error:
            raise UserError(f"{study.name}, {name}: {error}") from error
        except Exception as error:  # whatever a model can raise; without its name nobody would know which it was
            image = "x".join(map(str, reversed(study.image)))
            raise UserError(
                f"{study.name}, {name}: it failed in a training step, or at an image of {image}. "
                f"{type(error).__name__}: {error}"
            ) from error
        costs[name] = Cost(parameters, flops, seconds)
    if torch.cuda.is_available():  # the runs are trained by other processes, which want its memory
        gc.collect()
        torch.cuda.empty_cache()
    return costs


def deviations(costs: Mapping[str, Cost]) -> dict[str, float]:
    """By what share of its FLOPs each variant differs from the first."""
    first = next(iter(costs.values())).flops
    return {name: cost.flops / first - 1 for name, cost in costs.items()}


def check_equal_cost(study: Study, costs: Mapping[str, Cost]) -> None:
    """Check that variants cost the same, where the study is to be of such.

    Raises:
        UserError: Some differ by more than it tolerates.
    """
    if study.tolerance is None:
        return
    off = {name: share for name, share in deviations(costs).items() if abs(share) > study.tolerance}
    if off:
        told = ", ".join(f"{name} {share:+.1%}" for name, share in off.items())
        raise UserError(
            f"{study.name} compares at equal FLOPs, within {study.tolerance:.0%} of {next(iter(costs))}, and these are "
            f"off: {told}. Change their widths or depths; tolerance = None in the study compares them even so"
        )


def plan(study: Study, costs: Mapping[str, Cost], finished: int) -> str:
    """The study on paper: a table of costs, and how long it will take.

    Args:
        study: The study.
        costs: Of its variants.
        finished: How many of its runs are there already.
    """
    shares = deviations(costs)
    rows = [
        [
            name,
            f"{cost.parameters / 1e6:.2f} M",
            f"{cost.flops / 1e9:.3f} G",
            f"{shares[name]:+.1%}",
            "-" if cost.seconds is None else f"{cost.seconds:.2f} s",
        ]
        for name, cost in costs.items()
    ]
    height, width = study.image
    header = ["variant", "parameters", f"FLOPs at {width}x{height}", f"of {next(iter(costs))}", "a step"]
    runs = len(study.runs())
    lines = [markdown_table(header, rows), ""]
    lines.append(
        f"{runs} runs ({len(costs)} variants, seeds {study.seeds}) of {study.length}; {finished} are finished."
    )
    hours = expected_hours(study, costs)
    if hours is not None:
        lines.append(f"All of them: {hours:.1f} hours of training steps here, evaluations apart.")
    return "\n".join(lines)


def expected_hours(study: Study, costs: Mapping[str, Cost]) -> float | None:
    """Hours of the training steps of all runs, None where no step was timed."""
    total = 0.0
    for name, cost in costs.items():
        if cost.seconds is None:
            return None
        total += cost.seconds * _iterations(study.variants[name], study.length) * len(study.seeds)
    return total / 3600


def time_steps(config: Config, steps: int) -> float:
    """Seconds of a training step on the config's own data, the median of some; loading is part of it.

    Raises:
        UserError: The config or its data are not what training takes.
    """
    check_config(config, "train")
    check_data(config, "train")
    init_default_scope(config.default_scope)
    loader = _loader(config)
    config = copy.deepcopy(config)
    config.model.setdefault("data_preprocessor", config.get("data_preprocessor"))  # as the Runner does
    model = MODELS.build(config.model).to(get_device()).train()
    optimizer = build_optim_wrapper(model, config.optim_wrapper)
    seconds = []
    batches = itertools.chain.from_iterable(itertools.repeat(loader))
    for _ in range(steps + 1):
        start = time.perf_counter()
        model.train_step(next(batches), optimizer)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def _variant(path: Path, given: Mapping[str, Any], name: str, data_root: str | None) -> Config:
    changes = dict(given["variants"][name])
    base = changes.pop("base", given.get("base"))
    if base is None:
        raise UserError(f"{path}: neither the study nor {name} has a base, the config to start from")
    if not isinstance(base, str):
        raise UserError(f"{path}: base of {name} should be the name or file of a config, and is {base!r}")
    beside = path.parent / base
    try:
        config = load_config(
            beside if beside.is_file() else base, options={**given.get("recipe", {}), **changes}, data_root=data_root
        )
    except UserError as error:
        raise UserError(f"{path}, {name}: {error}") from error
    if missing := [key for key in ("train_cfg", "train_dataloader") if not config.get(key)]:
        raise UserError(f"{path}, {name}: its config has no {' and no '.join(missing)}, and is none to train by")
    config.pop("work_dir")
    _check_evaluates(config, f"{path}, {name}")
    _log_what_is_counted(config)
    _log_to_files(config)
    return config


def _misfits(given: Mapping[str, Any]) -> Iterator[str]:
    """What of a study is none of the values that its keys have."""
    variants, seeds, image = given["variants"], given["seeds"], given["image"]
    if not isinstance(variants, dict) or not all(isinstance(one, dict) for one in variants.values()):
        yield f"variants should be a dict, settings by the name of each, and is {variants!r}"
    elif unnamed := [name for name in variants if not isinstance(name, str) or not slug(name)]:
        yield f"variants should be named by letters or digits, in quotes, and one is {unnamed[0]!r}"
    else:
        folders: dict[str, str] = {}
        for name in variants:
            if (other := folders.setdefault(slug(name), name)) != name:
                yield f"{other!r} and {name!r} would have the same folder, {slug(name)}: name them by other words"
    if not isinstance(seeds, list | tuple | range) or not all(_is_whole(seed, 0) for seed in seeds):
        yield f"seeds should be a list of whole numbers, as [0, 1, 2], and is {seeds!r}"
    elif len(set(seeds)) < len(seeds):
        yield f"variants and seeds should differ, and seeds are {seeds!r}"
    if not isinstance(image, list | tuple) or len(image) != 2 or not all(_is_whole(side, 1) for side in image):
        yield f"image should be a height and a width, as (224, 224), and is {image!r}"
    tolerance = given.get("tolerance", 0.05)
    if tolerance is not None and not (_is_number(tolerance) and tolerance >= 0):
        yield f"tolerance should be a share of the FLOPs, as 0.05, or None, and is {tolerance!r}"
    for key, kind, told in (("metric", str, "the key of one"), ("base", str, "a config"), ("recipe", dict, "a dict")):
        if not isinstance(given.get(key, kind()), kind):
            yield f"{key} should be {told}, and is {given[key]!r}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: Any, least: int) -> bool:
    return _is_number(value) and isinstance(value, int) and least <= value < 2**32


def _check_evaluates(config: Config, where: str) -> None:
    """Check that there is an evaluation after the last step, from which results are read.

    Raises:
        UserError: There will be none, which would be seen after the training.
    """
    if missing := [key for key in ("val_dataloader", "val_cfg", "val_evaluator") if config.get(key) is None]:
        raise UserError(f"{where}: nothing is evaluated, for its config has no {', '.join(missing)}")
    begin, steps = config.train_cfg.get("val_begin", 1), _length(config).steps
    if begin > steps:
        raise UserError(f"{where}: nothing is evaluated, for train_cfg has val_begin={begin} and ends at {steps}")


def _log_what_is_counted(config: Config) -> None:
    """Have evaluations logged by the number of the iteration where training counts these, else of the epoch.

    mmengine's default is the epoch, which is 0 for all of a training by iterations; and runs are read from their logs.
    """
    by_epoch = _length(config).by_epoch
    hooks = config.get("default_hooks") or {}
    logger = hooks.get("logger") or dict(type="LoggerHook")
    if logger.get("log_metric_by_epoch", True) != by_epoch or hooks.get("logger", logger) is None:
        config.default_hooks = {**hooks, "logger": {**logger, "log_metric_by_epoch": by_epoch}}


def _log_to_files(config: Config) -> None:
    """Have a run write the logs that it is read from, beside those of the programs that its config names."""
    visualizer = config.get("visualizer")
    if visualizer is None:  # mmengine's own has them
        return
    backends = list(visualizer.get("vis_backends") or ())
    if not any(type_name(backend) == "LocalVisBackend" for backend in backends):
        config.visualizer = {**visualizer, "vis_backends": [*backends, dict(type="mmengine.LocalVisBackend")]}


def _length(config: Config) -> Length:
    loop = config.train_cfg
    by_epoch = loop.get("max_iters") is None
    return Length(loop.max_epochs if by_epoch else loop.max_iters, by_epoch, config.train_dataloader.batch_size)


def _iterations(config: Config, length: Length) -> int:
    if not length.by_epoch:
        return length.steps
    init_default_scope(config.default_scope)
    return length.steps * len(_loader(config))


def _loader(config: Config) -> DataLoader:
    """Images of training, loaded in this process: workers hide that behind the steps or not, as there is room."""
    settings = {key: value for key, value in config.train_dataloader.items() if key not in _OF_WORKERS}
    return Runner.build_dataloader({**settings, "num_workers": 0})
