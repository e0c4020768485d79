"""Random configs: each runs, or is refused with a message of ours; never another exception, never NaN.

Examples::

    python benchmarks/fuzz_configs.py backbones --cases 3000
    python benchmarks/fuzz_configs.py edits --cases 1000 --seed 1

``backbones`` builds EyeToy, NAT and DiNAT from arguments of which some are nonsense, and takes a step with a small map.
``edits`` takes the configs of the sample, in the size of a dry run, changes one place (drops a key, gives it another
value, misspells it, repeats an entry of a list) and trains two iterations with the Runner, evaluates and saves. Of
each kind of outcome the number is printed; of what should not be, every case.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import logging
import math
import random
import signal
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner

import eyetoy_mm  # noqa: F401 - before the toolboxes: supplies what mmcv-lite lacks
from eyetoy_mm.backbones import EyeToy
from eyetoy_mm.backbones.nat import NAT, DiNAT
from eyetoy_mm.datasets.findings import refuse_fatal
from eyetoy_mm.engine.channels import match_channels
from eyetoy_mm.engine.config import adapt_to_machine, load_config
from eyetoy_mm.engine.config_checks import check_config
from eyetoy_mm.engine.config_structure import structure_findings
from eyetoy_mm.engine.data_checks import check_data
from eyetoy_mm.engine.dry_run import shrink, use_sample
from eyetoy_mm.engine.first_steps import explained_errors
from eyetoy_mm.engine.hooks import RehearseEvaluationHook
from eyetoy_mm.engine.loop_checks import check_loops
from eyetoy_mm.engine.skeletons import EmptyOnMeta
from eyetoy_mm.errors import UserError
from eyetoy_mm.paths import package_file

NONSENSE: list[Any] = [
    *(None, True, False, -1, 0, 1, 2, 3, 7, 64, 1000, 0.5, -0.5, 1.0, 1.5, 1e30, math.nan, math.inf, "abc", "", "1"),
    *(
        [],
        [1],
        [1, 2],
        [0, 1, 2, 3],
        [-1],
        ["a"],
        [None],
        [[1]],
        (3, 3),
        (1, 1, 1, 1),
        {},
        dict(type="demo"),
        dict(x=1),
    ),
    "float32",
]
BACKBONES: list[tuple[type, dict[str, Any]]] = [
    (EyeToy, dict(arch="demo", drop_path_rate=0.1, out_indices=(0, 1, 2, 3))),
    (
        EyeToy,
        dict(
            arch=dict(
                embed_dims=[16, 32], depths=[1, 1], num_heads=[1, 2], windows=[(3, 5), (3,)], merging=[(1, 2), (1,)]
            ),
            in_channels=3,
            out_indices=(0, 1),
            frozen_stages=-1,
            dropout=0.0,
            with_cp=False,
            init_cfg=None,
        ),
    ),
    *(
        (kind, dict(arch=None, embed_dims=16, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2), mlp_ratio=2, kernel_size=3))
        for kind in (NAT, DiNAT)
    ),
]
MORE = ("kernel_size", "dilations", "layer_scale", "qkv_bias", "drop_path_rate", "frozen_stages", "out_indices", "rpb")
SAMPLES = [
    "sample/upernet_eyetoy-demo_sample",
    "sample/upernet_nat-demo_sample",
    "sample/mask-rcnn_eyetoy-demo_sample",
    "eyetoy/eyetoy-shallow_b128-30e_cifar10",
]
TOO_MANY = 5_000_000  # parameters that are built, but take too long to run


def random_backbone(rng: random.Random) -> tuple[type, dict[str, Any]]:
    """A backbone and arguments of which up to three are changed."""
    kind, arguments = rng.choice(BACKBONES)
    arguments = copy.deepcopy(arguments)
    for _ in range(rng.randint(0, 3)):
        target = arguments
        if isinstance(arguments.get("arch"), dict) and rng.random() < 0.5:
            target = arguments["arch"]
        key = rng.choice([*target, *MORE])
        action = rng.random()
        if action < 0.1:
            target.pop(key, None)
        elif action < 0.2:
            target[misspelt(key, rng)] = target.pop(key, None)
        elif isinstance(target.get(key), list | tuple) and target[key] and action < 0.5:
            entries = list(target[key])
            entries[rng.randrange(len(entries))] = copy.deepcopy(rng.choice(NONSENSE))
            target[key] = type(target[key])(entries) if rng.random() < 0.5 else entries
        else:
            target[key] = copy.deepcopy(rng.choice(NONSENSE))
    return kind, arguments


def run_backbone(kind: type, arguments: dict[str, Any]) -> str:
    """Build it and take a step.

    Raises:
        ValueError, TypeError: The arguments are refused.
        FloatingPointError: A value is not finite.
    """
    with EmptyOnMeta():
        parameters = sum(parameter.numel() for parameter in kind(**copy.deepcopy(arguments)).parameters())
    if parameters > TOO_MANY:
        return "builds, too large to run here"
    model = kind(**arguments).train()
    model.init_weights()
    outputs = model(torch.randn(2, model_channels(arguments), 32, 32))
    tensors = list(tensors_in(outputs))
    loss = sum(tensor.square().mean() for tensor in tensors)
    if isinstance(loss, torch.Tensor) and loss.requires_grad:
        loss.backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    if not all(tensor.isfinite().all() for tensor in (*tensors, *gradients)):
        raise FloatingPointError("a map or a gradient is not finite")
    return "runs"


def model_channels(arguments: dict[str, Any]) -> int:
    """Of the images; an arguments' own where it was accepted."""
    return arguments.get("in_channels", 3)


def tensors_in(outputs: Any) -> Iterator[torch.Tensor]:
    """Every tensor of nested tuples and lists."""
    if isinstance(outputs, torch.Tensor):
        yield outputs
    elif isinstance(outputs, list | tuple):
        for output in outputs:
            yield from tensors_in(output)


# --- Edits ------------------------------------------------------------------------------------------------------------


def small_config(name: str, scratch: Path) -> Config:
    """A config on the sample, for two iterations with two small images."""
    config = load_config(package_file("configs") / f"{name}.py", work_dir=str(scratch / "work"))
    shrink(config)
    use_sample(config, scratch)
    if config.default_scope == "mmpretrain":
        config.val_evaluator = config.test_evaluator = dict(type="Accuracy", topk=(1,))
    config.load_from = None
    return config


def places(node: Any, path: tuple = ()) -> Iterator[tuple]:
    """The path of every key and entry."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list | tuple) else ()
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


def random_edit(config: Config, rng: random.Random) -> tuple[Config, str]:
    """The config changed in one place, and what was changed.

    Paths, addresses and devices are left alone: they are not the config's but the machine's.
    """
    tree = config.to_dict()
    skipped = {"data_root", "ann_file", "data_prefix", "work_dir", "backend_args", "file_client_args", "launcher"}
    top = [key for key in tree if key in READ]
    path = rng.choice(
        [place for place in places({key: tree[key] for key in top}) if not skipped & set(map(str, place))]
    )
    owner: Any = tree
    for key in path[:-1]:
        if isinstance(owner[key], tuple):
            owner[key] = list(owner[key])
        owner = owner[key]
    key, actions = path[-1], ["value", "value", "value", "drop"]
    actions += ["misspell", "misspell"] if isinstance(owner, dict) else ["repeat"]
    action = rng.choice(actions)
    before = copy.deepcopy(owner[key])
    if action == "drop":
        del owner[key]
        told = "dropped"
    elif action == "misspell":
        name = misspelt(str(key), rng)
        owner[name] = owner.pop(key)
        told = f"misspelt {name}"
    elif action == "repeat":
        owner.insert(key, before)
        told = "repeated"
    else:
        owner[key] = copy.deepcopy(rng.choice([*NONSENSE, *another(before)]))
        told = f"= {owner[key]!r}"
    edited = Config(ConfigDict(tree), filename=config.filename)
    return edited, f"{'.'.join(map(str, path))} (was {str(before)[:60]}) {told}"


READ = {
    *("model", "train_dataloader", "val_dataloader", "train_cfg", "val_cfg", "optim_wrapper", "param_scheduler"),
    *("val_evaluator", "default_hooks", "custom_hooks", "env_cfg", "randomness", "log_processor", "log_level"),
    *("visualizer", "data_preprocessor"),
}


def another(value: Any) -> list[Any]:
    """Values near one."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int | float):
        return [-value, value * 2, value / 2, str(value), value + 1, [value]]
    if isinstance(value, str):
        return [value.upper(), value + "s", [value], value[:-1]]
    if isinstance(value, dict):
        return [list(value), [value], str(value)]
    if isinstance(value, list | tuple):
        return [list(value)[:-1], [*value, *value], dict(enumerate(value)), value[0] if value else None]
    return []


def misspelt(name: str, rng: random.Random) -> str:
    """A name with two letters exchanged, one left out or one twice."""
    place = rng.randrange(max(len(name) - 1, 1))
    return rng.choice(
        [
            name[:place] + name[place + 1 : place + 2] + name[place : place + 1] + name[place + 2 :],
            name[:place] + name[place + 1 :],
            name[: place + 1] + name[place:],
        ]
    )


def run_config(config: Config, name: str) -> str:
    """Check a config as ``eyetoy train`` does, and train; ``name`` is its Runner's, of which mmengine keeps parts.

    Raises:
        UserError: It is refused.
        FloatingPointError: The loss is not finite.
    """
    check(config)
    config = copy.deepcopy(config)
    config.experiment_name = name
    with explained_errors(config) as run:
        runner = run.runner = Runner.from_cfg(config)
        runner.register_hook(RehearseEvaluationHook())
        check_loops(runner)
        runner.train()
    losses = runner.message_hub.log_scalars.get("train/loss")
    if losses is not None and not math.isfinite(losses.current()):
        raise FloatingPointError(f"loss {losses.current()}")
    return "runs"


def check(config: Config) -> None:
    """What ``load_config`` and ``train`` look at before anything is built.

    Raises:
        UserError: The config is refused.
    """
    refuse_fatal(structure_findings(config))
    match_channels(config)
    adapt_to_machine(config)
    check_config(config, "train", "val")
    check_data(config, "train", "val")


# --- The program ------------------------------------------------------------------------------------------------------


class Timeout(Exception):
    """A case took too long."""


def outcome(case: Any, *arguments: Any) -> tuple[str, str]:
    """What a case came to, in a word, and the text of its error."""
    signal.signal(signal.SIGALRM, _stop)
    signal.alarm(90)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return case(*arguments), ""
    except UserError as error:
        return "refused", str(error)
    except (ValueError, TypeError) as error:
        if case is run_backbone and "eyetoy_mm" in traceback.extract_tb(error.__traceback__)[-1].filename:
            return "refused", str(error)
        if case is run_backbone and ("unexpected keyword" in str(error) or "missing" in str(error)):
            return "refused", str(error)
        return f"{type(error).__name__}", traceback.format_exc()
    except Exception as error:  # what should not be
        return type(error).__name__, traceback.format_exc()
    finally:
        signal.alarm(0)


def _stop(*_: Any) -> None:
    raise Timeout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["backbones", "edits"])
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as scratch:
        configs = [small_config(name, Path(scratch)) for name in SAMPLES] if args.what == "edits" else []
        logging.disable(logging.CRITICAL)
        for number in range(args.cases):
            rng = random.Random(f"{args.seed} {number}")
            torch.manual_seed(number)
            if args.what == "backbones":
                kind, arguments = random_backbone(rng)
                told = f"{kind.__name__}({', '.join(f'{k}={v!r}' for k, v in arguments.items())})"
                found, text = outcome(run_backbone, kind, arguments)
            else:
                config, told = random_edit(rng.choice(configs), rng)
                told = f"{Path(config.filename).stem}: {told}"
                found, text = outcome(run_config, config, f"case {number}")
            counts[found] += 1
            if found not in ("runs", "refused", "builds, too large to run here"):
                print(f"--- case {number}: {told}\n{found}: {text}", flush=True)
    print(", ".join(f"{count} {found}" for found, count in counts.most_common()))


if __name__ == "__main__":
    main()
