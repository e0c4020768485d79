"""Options that several verbs have, each defined once."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eyetoy_mm.errors import UserError
from eyetoy_mm.paths import check_folder
from eyetoy_mm.zoo import card_of, located, weights_of_config

if TYPE_CHECKING:
    from mmengine.config import Config

_MOST_PIXELS = 2**28  # of an image; in float32 these are 3 GB
_CHECKPOINTS = (".pth", ".pt", ".ckpt", ".safetensors", ".bin", ".pkl", ".tar")  # suffixes


class Several(argparse.Action):
    """Values of an option that may be given more than once: all of them, where argparse keeps the last ones."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Put them behind those of before."""
        before = getattr(namespace, self.dest)
        setattr(namespace, self.dest, values if before is self.default else [*before, *values])


def positive(text: str) -> int:
    """A number of at least 1, as the ``type`` of an option."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def duration(text: str) -> float:
    """Seconds, more than none, as the ``type`` of an option."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of seconds above 0, got {text!r}")
    return seconds


def height_and_width(text: str) -> tuple[int, int]:
    """Read ``H,W``.

    Raises:
        UserError: It is not two numbers of at least 1, or more than an image has.
    """
    parts = text.split(",")
    if len(parts) != 2 or not all(part.strip().isdecimal() and int(part) >= 1 for part in parts):
        raise UserError(f"--size must be H,W, height and width in pixels, got {text!r}")
    height, width = map(int, parts)
    if height * width > _MOST_PIXELS:
        raise UserError(f"--size must be H,W of at most {_MOST_PIXELS:,} pixels together, got {text!r}")
    return height, width


def add_config(parser: argparse.ArgumentParser) -> None:
    """The config of a model."""
    parser.add_argument("config", metavar="CONFIG", help="config file, or the name of a model of the package")


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Its weights; :func:`take_checkpoint` finds them."""
    parser.add_argument(
        "checkpoint",
        nargs="?",
        metavar="CHECKPOINT",
        help="checkpoint file, or the name of a model (default: the weights that come with the package)",
    )


def take_checkpoint(args: argparse.Namespace, rest: list[str]) -> list[str]:
    """Settle which of the words after CONFIG is the checkpoint, and take the weights of the package where none is.

    argparse goes by how many words there are: it cannot tell a checkpoint from the first of some images, nor take words
    that stand behind an option to those before it.

    Args:
        args: What was parsed. ``checkpoint`` is set, and ``images`` or ``image`` where the verb has them.
        rest: Words that it had no place for.

    Returns:
        Those that have no place here either.

    Raises:
        UserError: There are no weights of this model.
    """
    if any(word.startswith("-") for word in rest):
        return rest
    one, many = "image" in args, "images" in args
    images = args.images if many else [args.image] if one else []
    words = [word for word in (args.checkpoint, *images, *rest) if word is not None]
    if many:
        given = _is_checkpoint(words[0]) or (len(words) > 1 and _own_weights(args.config) is None)
    else:
        given = len(words) > one
    args.checkpoint = words.pop(0) if given else _own_weights(args.config)
    if args.checkpoint is None:
        raise UserError(
            f"no CHECKPOINT is given, and no weights of {args.config} come with the package; `eyetoy models --weights` "
            "lists the models that have some"
        )
    if not given:
        card = card_of(args.checkpoint)
        with beside_json(args):
            print(f"Weights: {args.checkpoint}" + (f", described in {card}" if card else ""), flush=True)
    if many and not words:
        raise UserError(f"no IMAGE is given after {args.checkpoint}")
    if many:
        args.images, words = words, []
    elif one:
        args.image, *words = words
    return words


def _is_checkpoint(word: str) -> bool:
    path = Path(word.partition("?")[0])
    return path.suffix in _CHECKPOINTS or (path / ".metadata").is_file() or located(word) != word


def _own_weights(config: str) -> str | None:
    """The weights that come with the package for a config, as it is given."""
    from eyetoy_mm.engine.config import find_config

    return weights_of_config(find_config(config))


def add_tta(parser: argparse.ArgumentParser) -> None:
    """Whether several views of each image are predicted, and merged."""
    parser.add_argument("--tta", action="store_true", help="test-time augmentation, as tta_model and tta_pipeline say")


def add_device(parser: argparse.ArgumentParser) -> None:
    """Where a model runs that is not the Runner's."""
    parser.add_argument("--device", metavar="DEVICE", help="torch device (default: an accelerator if there is one)")


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Settings in place of a config's; :func:`cfg_options` reads them."""
    parser.add_argument(
        "--cfg-options", nargs="+", action=Several, metavar="KEY=VALUE", help="override settings: key.of.it=value ..."
    )


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """What every verb that runs a config takes; :func:`load_config_from` reads it."""
    add_work_dir(parser, "work_dirs/<config name>")
    add_data_root(parser)
    parser.add_argument("--amp", action="store_true", help="mixed precision in training; evaluation follows the config")
    add_cfg_options(parser)
    parser.add_argument(
        "--launcher",
        choices=["none", "pytorch", "slurm", "mpi"],
        default="none",
        help="what started the processes: torchrun (pytorch), srun, mpirun",
    )
    parser.add_argument(
        "--dist-timeout", type=duration, metavar="SECONDS", help="how long processes wait for each other"
    )
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)


def add_data_root(parser: argparse.ArgumentParser) -> None:
    """Where the data are."""
    parser.add_argument(
        "--data-root", metavar="FOLDER", help="folder or address of the dataset, in place of the config's data_root"
    )


def add_json(parser: argparse.ArgumentParser, what: str) -> None:
    """A file for other programs; :func:`write_json` writes it.

    Args:
        parser: Of the verb.
        what: What is in it.
    """
    parser.add_argument(
        "--json", nargs="?", const="-", metavar="FILE", help=f"{what}, as JSON; without FILE it is printed"
    )


def beside_json(args: argparse.Namespace) -> contextlib.AbstractContextManager[Any]:
    """What is said in this context goes to standard error where ``--json`` is printed: other programs read that."""
    prints = getattr(args, "json", None) == "-"
    return contextlib.redirect_stdout(sys.stderr) if prints else contextlib.nullcontext()


def write_json(target: str, content: object) -> None:
    """Write the file of ``--json``, or print it."""
    text = json.dumps(content, indent=1)
    if target == "-":
        print(text)
        return
    try:
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        Path(target).write_text(f"{text}\n")
    except OSError as error:
        raise UserError(f"cannot write --json {target}: {error}") from error
    print(f"-> {target}")


def check_picture(option: str, path: Path) -> None:
    """Check that matplotlib can write a picture into a file, before what is drawn in it is computed.

    Args:
        option: What names it, for the message.
        path: The file; its suffix is the format.

    Raises:
        UserError: The suffix is of no format that matplotlib writes, or the folder cannot be written in.
    """
    from matplotlib.figure import Figure

    formats = Figure().canvas.get_supported_filetypes()
    if path.suffix.removeprefix(".").lower() not in formats:
        raise UserError(f"{option} {path} must end in one of {', '.join(f'.{name}' for name in sorted(formats))}")
    check_folder(option, path.parent)


def add_work_dir(parser: argparse.ArgumentParser, default: str) -> None:
    """Where a run writes.

    Args:
        parser: Of the verb.
        default: What its help says; the value is None where the option is not given.
    """
    parser.add_argument("--work-dir", metavar="FOLDER", help=f"folder for logs and checkpoints (default: {default})")


def cfg_options(args: argparse.Namespace) -> dict[str, Any] | None:
    """The settings of ``--cfg-options``, as mmengine reads them.

    Raises:
        UserError: One is not ``key=value``.
    """
    from mmengine.config import DictAction

    if args.cfg_options is None:
        return None
    for option in args.cfg_options:
        if "=" not in option:
            raise UserError(f"--cfg-options takes key.of.it=value, got {option!r}")
    reader = argparse.ArgumentParser()
    reader.add_argument("--cfg-options", nargs="+", action=DictAction)
    return reader.parse_args(["--cfg-options", *args.cfg_options]).cfg_options


def load_config_from(args: argparse.Namespace) -> Config:
    """Load the config that a command line asks for."""
    from eyetoy_mm.engine.config import load_config

    if args.launcher == "pytorch":  # the older torch.distributed.launch gives it as an argument
        os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    return load_config(
        args.config,
        options=cfg_options(args),
        work_dir=args.work_dir,
        data_root=args.data_root,
        launcher=args.launcher,
        dist_timeout=args.dist_timeout,
        amp=args.amp,
    )
