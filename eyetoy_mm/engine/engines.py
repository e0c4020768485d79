"""The engine of a run, chosen by the config: whole models in each process (DDP), or shards of one (FSDP2).

``engine = "DDP"`` is what a config without one has. ``engine = "FSDP2"``, or a dict of that type with the arguments of
:class:`FSDP2`, trains shards; on a command line: ``--cfg-options engine.type=FSDP2 engine.checkpoints=sharded``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config

from eyetoy_mm.datasets.findings import Finding
from eyetoy_mm.engine.config_places import argument_findings, at, did_you_mean
from eyetoy_mm.registry import type_name

ENGINES = ("DDP", "FSDP2")
_DTYPES = ("float32", "bfloat16", "float16")
_CHECKPOINTS = ("full", "sharded")


@dataclass(frozen=True)
class FSDP2:
    """Fully sharded data parallelism (``torch.distributed.fsdp.fully_shard``): how a model is sharded and saved.

    Args:
        blocks: What is gathered at once, as names of classes or modules; None for the blocks of the backbone, see
            :func:`.block_names`. What is in none is gathered for a whole step.
        param_dtype: In what the blocks are gathered and computed; their inputs are cast to it, and their outputs to
            float32, in which the rest of the model, losses and boxes are computed. None: as they are.
        reduce_dtype: In what gradients of the blocks are summed over processes; None: as they are.
        reshard_after_forward: Forget a block after its forward and gather it again for its backward.
        checkpoints: ``"full"``: a file as mmengine's, by process 0. ``"sharded"``: a directory, each process its part.
        async_save: Write sharded checkpoints while training goes on.
    """

    blocks: list[str] | None = None
    param_dtype: str | None = None
    reduce_dtype: str | None = None
    reshard_after_forward: bool = True
    checkpoints: str = "full"
    async_save: bool = False


def shards_model(config: Config) -> bool:
    """Whether the engine of a config is FSDP2."""
    engine = config.get("engine")
    return (engine if isinstance(engine, str) else type_name(engine)) == "FSDP2"


def sharding_of(config: Config) -> FSDP2:
    """How a config wants its model sharded."""
    engine = config.get("engine")
    return FSDP2() if isinstance(engine, str) else FSDP2(**{key: x for key, x in engine.items() if key != "type"})


def engine_findings(config: Config) -> Iterator[Finding]:
    """What is wrong with the engine of a config, or does not go with it."""
    if config.get("strategy") is not None:
        yield Finding("strategy", "nothing reads it: it is of mmengine's FlexibleRunner. For shards set engine='FSDP2'")
    if type_name(config.get("model_wrapper_cfg")) == "MMFullyShardedDataParallel":
        message = "mmengine's FSDP1 neither saves nor resumes on this PyTorch: remove it, and set engine='FSDP2'"
        yield Finding("model_wrapper_cfg.type='MMFullyShardedDataParallel'", message)
        return
    engine = config.get("engine")
    if engine is None:
        return
    if not isinstance(engine, str | dict):
        yield Finding(at("engine", engine), f"should be one of {', '.join(ENGINES)}, or a dict of that type")
        return
    name = engine if isinstance(engine, str) else type_name(engine)
    if name not in ENGINES:
        key = "engine" if isinstance(engine, str) else "engine.type"
        yield Finding(at(key, name), f"should be one of {', '.join(ENGINES)}{did_you_mean(name, ENGINES)}")
    elif name == "DDP" and not isinstance(engine, str):
        for argument in set(engine) - {"type"}:
            yield Finding(f"engine.{argument}", "DDP takes no arguments here: model_wrapper_cfg has them")
    elif name == "FSDP2":
        settings = {} if isinstance(engine, str) else dict(engine)
        yield from _settings_findings(settings)
        yield from _combination_findings(config)


def _settings_findings(settings: dict[str, Any]) -> Iterator[Finding]:
    yield from argument_findings("engine", settings, FSDP2)
    choices = dict(param_dtype=(None, *_DTYPES), reduce_dtype=(None, *_DTYPES), checkpoints=_CHECKPOINTS)
    for name, known in choices.items():
        value = settings.get(name, known[0])
        if value not in known:
            yield Finding(at(f"engine.{name}", value), f"should be one of {', '.join(map(str, known))}")
    for name in ("reshard_after_forward", "async_save"):
        if not isinstance(settings.get(name, True), bool | str):  # text is told above
            yield Finding(at(f"engine.{name}", settings[name]), "should be True or False")
    blocks = settings.get("blocks")
    if blocks is not None and not (isinstance(blocks, list | tuple) and all(isinstance(one, str) for one in blocks)):
        yield Finding(at("engine.blocks", blocks), "should be a list of names of classes or modules, or None")
    if settings.get("async_save") and settings.get("checkpoints", "full") != "sharded":
        yield Finding("engine.async_save=True", "is for directories: set engine.checkpoints='sharded' as well")


def _combination_findings(config: Config) -> Iterator[Finding]:
    """What is DDP's, or needs what shards do not have."""
    if config.get("find_unused_parameters"):
        yield Finding(
            "find_unused_parameters=True",
            "is DDP's. FSDP2 sums the gradients of a block in one piece, so that each process has to use the same "
            "parameters in each step: set it to False where those that are not used are the same everywhere, or "
            "engine='DDP'",
        )
    if config.get("model_wrapper_cfg") is not None:
        yield Finding("model_wrapper_cfg", "is DDP's: remove it with engine='FSDP2', whose arguments engine=dict() has")
    if config.get("efficient_conv_bn_eval") or config.get("compile"):
        key = "efficient_conv_bn_eval" if config.get("efficient_conv_bn_eval") else "compile"
        yield Finding(key, "replaces parts of a model that FSDP2 has sharded: remove it, or set engine='DDP'")
    wrapper = config.get("optim_wrapper") or {}
    if "optimizer" not in wrapper and type_name(wrapper) in ("", "OptimWrapperDict"):
        yield Finding("optim_wrapper", "FSDP2 shards the state of one optimizer: give one, or set engine='DDP'")
    for split in ("train", "val"):
        sampler = (config.get(f"{split}_dataloader") or {}).get("sampler") or {}
        if sampler.get("round_up") is False:
            yield Finding(
                f"{split}_dataloader.sampler.round_up=False",
                "gives processes other numbers of batches, and all of them gather a block together: set it to True",
            )
