"""Processes that work together: found in the environment of what started them, and joined.

mmengine's own start (``mmengine.dist.init_dist``) needs CUDA whatever the back end, ``scontrol`` under Slurm, and Open
MPI's variables under MPI. It is skipped where a process group exists, so that all this happens before a Runner is made.
"""

from __future__ import annotations

import gc
import logging
import os
import re
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.logging import print_log

from eyetoy_mm.engine.engines import shards_model
from eyetoy_mm.errors import UserError

LAUNCHERS = ("none", "pytorch", "slurm", "mpi")

# What each MPI calls a process's number, their number, and its number on its host.
_MPI = (
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),  # Open MPI
    ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_LOCAL_RANK"),  # MVAPICH
    ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"),  # MPICH and Intel MPI
    ("PMI_RANK", "PMI_SIZE", "PMI_LOCAL_RANK"),  # Cray's
)
_MPI_HERE = ("OMPI_COMM_WORLD_LOCAL_SIZE", "MV2_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "PMI_LOCAL_SIZE")


@dataclass(frozen=True)
class Place:
    """One process among those that work together.

    Args:
        rank: Its number.
        world_size: How many there are.
        local_rank: Its number among those of its host.
        address: Host of number 0.
        port: Where number 0 listens.
    """

    rank: int
    world_size: int
    local_rank: int
    address: str
    port: int


def place_of(launcher: str, environment: Mapping[str, str]) -> Place:
    """Find out which process this is.

    Args:
        launcher: What started it: pytorch (torchrun), slurm (srun) or mpi (mpirun, mpiexec).
        environment: Its environment. ``MASTER_ADDR`` and ``MASTER_PORT`` win over what is found otherwise.

    Raises:
        UserError: The environment is not that of the launcher; which variables are missing, and what to do.
    """
    read = dict(pytorch=_of_torchrun, slurm=_of_slurm, mpi=_of_mpi).get(launcher)
    if read is None:
        raise UserError(f"--launcher {launcher}: it is one of {', '.join(LAUNCHERS)}")
    place = read({name: value for name, value in environment.items() if value})  # scripts export empty ones
    if place.rank >= place.world_size:
        raise UserError(
            f"--launcher {launcher}: the environment says process {place.rank} of {place.world_size}, which are "
            "numbered from 0; are its variables left from another start?"
        )
    if not 0 < place.port < 1 << 16:
        raise UserError(f"--launcher {launcher}: MASTER_PORT is a number from 1 to 65535, not {place.port}")
    return place


def _of_torchrun(environment: Mapping[str, str]) -> Place:
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    start = "start it with torchrun --nproc_per_node N, or without --launcher in one process"
    rank, size, local_rank = (_number(environment, name, "pytorch", start) for name in names[:3])
    address = _text(environment, "MASTER_ADDR", "pytorch", start)
    return Place(rank, size, local_rank, address, _number(environment, "MASTER_PORT", "pytorch", start))


def _of_slurm(environment: Mapping[str, str]) -> Place:
    start = "start it with srun, in sbatch or salloc"
    rank = _number(environment, "SLURM_PROCID", "slurm", start)
    size = _number(environment, "SLURM_NTASKS", "slurm", start)
    local_rank = _number(environment, "SLURM_LOCALID", "slurm", start)
    address = environment.get("MASTER_ADDR")
    if address is None:
        names = ("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST")
        nodes = next((environment[name] for name in names if name in environment), None)
        nodes = nodes or _text(environment, "SLURM_NODELIST", "slurm", start)
        address = first_host(nodes)
    if "MASTER_PORT" in environment:
        port = _number(environment, "MASTER_PORT", "slurm", start)
    else:  # the same for all processes of a job, and another one for the next job on the same hosts
        port = 20000 + (_number(environment, "SLURM_JOB_ID", "slurm", start) * 7) % 12000
    return Place(rank, size, local_rank, address, port)


def _of_mpi(environment: Mapping[str, str]) -> Place:
    start = "start it with mpirun or mpiexec"
    for names in _MPI:
        if all(name in environment for name in names):
            break
    else:
        wanted = "; ".join(", ".join(names) for names in _MPI)
        raise UserError(f"--launcher mpi needs the variables of an MPI ({wanted}), and none are all set; {start}")
    rank, size, local_rank = (_number(environment, name, "mpi", start) for name in names)
    address = environment.get("MASTER_ADDR")
    if address is None:
        here = next((int(environment[name]) for name in _MPI_HERE if name in environment), None)
        if here != size:
            raise UserError(
                "--launcher mpi needs MASTER_ADDR, the host of process 0, where processes run on several hosts: "
                "mpirun -x MASTER_ADDR=HOST ... (mpiexec -genv MASTER_ADDR HOST ...)"
            )
        address = "127.0.0.1"
    port = _number(environment, "MASTER_PORT", "mpi", start) if "MASTER_PORT" in environment else 29500
    return Place(rank, size, local_rank, address, port)


def first_host(nodes: str) -> str:
    """The first host of a Slurm node list (``node[003-005,9],x``), as ``scontrol show hostnames`` says.

    Containers often lack ``scontrol``.
    """
    host = ""
    for part in re.findall(r"\[[^\]]*\]|[^\[,]+|,", nodes):
        if part == ",":
            break
        host += re.split("[-,]", part[1:-1])[0] if part.startswith("[") else part
    return host


def _text(environment: Mapping[str, str], name: str, launcher: str, start: str) -> str:
    if not environment.get(name):
        raise UserError(f"--launcher {launcher} needs {name} in the environment, which is not set; {start}")
    return environment[name]


def _number(environment: Mapping[str, str], name: str, launcher: str, start: str) -> int:
    text = _text(environment, name, launcher, start)
    if not text.isdecimal():
        raise UserError(f"--launcher {launcher} needs a number in {name}, which is {text!r}; {start}")
    return int(text)


@contextmanager
def joined(config: Config) -> Iterator[None]:
    """Join the other processes of a run, and part from them in order at its end.

    A process that ends with an error does not wait for the others: its launcher ends them.

    Args:
        config: ``launcher`` says what started the processes; ``env_cfg.dist_cfg`` has ``backend`` (default: that of the
            accelerator, gloo on CPUs) and ``timeout`` in seconds (default: PyTorch's). One process alone is a group
            where ``engine`` shards.

    Raises:
        UserError: The environment is not that of the launcher, there are more processes than devices, or the others
            cannot be reached. Or torchrun started several, and ``launcher`` is none.
    """
    launcher = config.get("launcher", "none")
    settings = (config.get("env_cfg") or {}).get("dist_cfg") or {}
    if launcher == "none":
        _check_alone(os.environ)
    if dist.is_initialized() or (launcher == "none" and not shards_model(config)):
        yield
        return
    if launcher == "none":
        alone = Place(0, 1, 0, "", 0)
        dist.init_process_group(_backend(alone, settings.get("backend")), store=dist.HashStore(), rank=0, world_size=1)
    else:
        _join(place_of(launcher, os.environ), settings, os.environ)
    yield
    dist.barrier()
    gc.collect()  # models in shards hold their group, whose threads have to end before the interpreter does
    dist.destroy_process_group()


def _check_alone(environment: Mapping[str, str]) -> None:
    """Refuse to be one of several processes that know nothing of each other: each would train all of it."""
    processes = environment.get("WORLD_SIZE", "1") if "TORCHELASTIC_RUN_ID" in environment else "1"
    if processes != "1":
        raise UserError(
            f"torchrun has started {processes} processes, and without --launcher pytorch each does all the work alone: "
            "add it, or use tools/dist_train.sh and dist_test.sh"
        )


def restarted(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether torchrun started this process again after one of the run's had died.

    Each host counts for itself: one that died and returned begins at 0, beside others that were restarted.
    """
    return int(environment.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def _join(place: Place, settings: dict, environment: MutableMapping[str, str]) -> None:
    backend = _backend(place, settings.get("backend"))
    seconds = settings.get("timeout")
    # Other code asks the environment, mmengine's loops and PyTorch's own store among it.
    environment.update(
        RANK=str(place.rank),
        WORLD_SIZE=str(place.world_size),
        LOCAL_RANK=str(place.local_rank),
        MASTER_ADDR=place.address,
        MASTER_PORT=str(place.port),
    )
    store = _store_of_attempt(place, environment)
    try:
        dist.init_process_group(
            backend,
            store=store,
            rank=place.rank,
            world_size=place.world_size,
            timeout=None if seconds is None else timedelta(seconds=seconds),
        )
    except (dist.DistNetworkError, dist.DistStoreError, TimeoutError) as error:
        raise UserError(
            f"process {place.rank} of {place.world_size} cannot reach the others at {place.address}:{place.port} "
            f"({error}). Is that host reachable, the port free (MASTER_PORT), and did every process start?"
        ) from error
    print_log(
        f"{place.world_size} processes with {backend}, process 0 at {place.address}:{place.port}",
        "current",
        logging.INFO,
    )


def _backend(place: Place, asked: str | None) -> str:
    """The communication back end, with this process's device chosen."""
    device = torch.accelerator.current_accelerator(check_available=True)
    if device is None:
        if asked not in (None, "nccl", "gloo", "mpi"):
            raise UserError(f"env_cfg.dist_cfg.backend is {asked!r}, and there is no accelerator: use 'gloo'")
        return "mpi" if asked == "mpi" else "gloo"  # nccl is what every config of the toolboxes says
    count = torch.accelerator.device_count()
    if count > 1 and place.local_rank >= count:
        raise UserError(
            f"process {place.local_rank} of this host has no device of its own: {count} are visible, start {count} "
            "processes at most on it"
        )
    torch.accelerator.set_device_index(place.local_rank if count > 1 else 0)  # Slurm can show each process its own
    return asked or dist.get_default_backend_for_device(device)


def _store_of_attempt(place: Place, environment: Mapping[str, str]) -> dist.Store | None:
    """A key space for each restart by torchrun, whose one store keeps the addresses of processes that died."""
    if environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    attempt = environment.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = dist.TCPStore(place.address, place.port, is_master=False)
    return dist.PrefixStore(f"{environment.get('TORCHELASTIC_RUN_ID')}/{attempt}", store)
