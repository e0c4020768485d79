"""What data sets of millions of images cost in memory and in requests to the storage: a pack, a list, LMDB.

    python benchmarks/packs.py [--images 14197122] [--listed 1419712]

The images of the first table are names alone: an index as `eyetoy pack` writes it, of classes of 650 images with
ImageNet's names, beside mmengine's list of dicts. Each row is a process of its own with four workers; memory is the
kernel's (smaps_rollup). The second table reads real files at random, out of no cache, and counts what the kernel was
asked for; LMDB where it is installed. Counts, not seconds: they do not depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from measuring import header, in_own_process, peak_memory, row

CLASS = 650
WORKERS = 4


def write_index(folder: Path, images: int) -> None:
    """A pack of names alone, sorted as they are made."""
    from eyetoy_mm.datasets.packs import DESCRIPTION, ENDS, NAMES, PLACE, PLACES, VERSION

    name = b"n00000000/n00000000_00000.JPEG"
    names = np.tile(np.frombuffer(name, np.uint8), (images, 1))
    numbers = np.arange(images)
    for first, digits, values in ((1, 8, numbers // CLASS), (11, 8, numbers // CLASS), (20, 5, numbers % CLASS)):
        for digit in range(digits):
            names[:, first + digit] += (values // 10 ** (digits - 1 - digit) % 10).astype(np.uint8)
    np.save(folder / NAMES, names.ravel())
    np.save(folder / ENDS, (numbers.astype(np.uint64) + 1) * len(name))
    np.save(folder / PLACES, np.zeros(images, PLACE))
    description = dict(version=VERSION, files=images, bytes=0, shards=[dict(name="00000.tar", bytes=0)])
    (folder / DESCRIPTION).write_text(json.dumps(description))


def build(kind: str, images: int, folder: str) -> object:
    """A data set that gives what it knows of an image."""
    import eyetoy_mm  # noqa: F401

    if kind == "pack":
        from eyetoy_mm.datasets.class_folders import ClassFolders

        return ClassFolders(data_root=f"pack://{folder}", pipeline=[])
    from mmengine.dataset import BaseDataset

    dataset = BaseDataset(pipeline=[], lazy_init=True)
    dataset.load_data_list = lambda: [
        dict(img_path=f"data/n{i // CLASS:08}/n{i // CLASS:08}_{i % CLASS:05}.JPEG", gt_label=i // CLASS)
        for i in range(images)
    ]
    dataset.full_init()
    del dataset.load_data_list
    return dataset


def private(process: int | str) -> int:
    """Bytes that a process has written, and shares with no other; mapped files are the kernel's, and shared."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty"))


def measure_memory(kind: str, images: int, folder: str) -> dict:
    """Build, then let workers read at random."""
    import torch
    from torch.utils.data import DataLoader

    import eyetoy_mm.datasets.class_folders  # noqa: F401 - not counted

    built, before = [], private("self")
    start = time.process_time()
    peak = peak_memory(lambda: built.append(build(kind, images, folder)))
    seconds, dataset = time.process_time() - start, built[0]
    own = private("self") - before
    drawn = torch.randperm(images, generator=torch.Generator().manual_seed(0))[:8000].tolist()
    loader = DataLoader(dataset, 20, sampler=drawn, num_workers=WORKERS, collate_fn=len, persistent_workers=True)
    idle = iter(DataLoader(range(WORKERS), 1, num_workers=WORKERS, persistent_workers=True))
    without = np.mean([private(worker.pid) for worker in idle._workers])
    batches = iter(loader)
    assert sum(batches) == 8000
    workers = np.mean([private(worker.pid) for worker in batches._workers])
    return dict(
        seconds=seconds,
        peak=peak,
        own=own,
        worker=float(workers - without),
        pickled=len(pickle.dumps(dataset, protocol=5)),
    )


def measure_sampler(images: int, own: bool) -> dict:
    """The start of an epoch: mmengine's sampler, or this package's way of it."""
    from mmengine.dataset import DefaultSampler

    from eyetoy_mm.engine.samplers import compact

    sampler = DefaultSampler(range(images), seed=0)
    sampler = compact(sampler) if own else sampler
    return dict(peak=peak_memory(lambda: next(iter(sampler))))


def reads() -> tuple[int, int]:
    """Calls that read, and pages that were waited for, of this process."""
    text = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(text["syscr"]), resource.getrusage(resource.RUSAGE_SELF).ru_majflt


def forget(folder: Path) -> None:
    """Take files out of the cache."""
    for path in folder.rglob("*"):
        if path.is_file():
            file = os.open(path, os.O_RDONLY)
            os.fsync(file)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)


def measure_reads(kind: str, folder: str) -> dict:
    """Read every file once, in a random order."""
    import eyetoy_mm.datasets.class_folders  # noqa: F401

    root = Path(folder)
    names = [line for line in (root / "names.txt").read_text().splitlines()]
    if kind == "pack":
        from eyetoy_mm.datasets.packs import open_pack

        forget(root / "pack")
        pack = open_pack(str(root / "pack"))
        read = lambda name: pack.read(pack.find(name))  # noqa: E731
    elif kind == "lmdb":
        import lmdb

        forget(root / "lmdb")
        database = lmdb.open(str(root / "lmdb"), readonly=True, lock=False, readahead=False)  # as mmengine opens it
        read = lambda name: bytes(database.begin().get(name.encode()))  # noqa: E731
    else:
        forget(root / "files")
        read = lambda name: (root / "files" / name).read_bytes()  # noqa: E731
    calls, faults = reads()
    total = sum(len(read(name)) for name in np.random.default_rng(0).permutation(names).tolist())
    after = reads()
    return dict(bytes=total, calls=(after[0] - calls) / len(names), faults=(after[1] - faults) / len(names))


def write_files(root: Path, count: int = 400, mean: int = 110_000) -> list[str]:
    """Files of the size of ImageNet's, as a folder, a pack and, if it is there, LMDB; the kinds that were written."""
    from eyetoy_mm.datasets.packing import pack_folder

    generator = np.random.default_rng(0)
    names = [f"n{number // 50:08}/{number}.JPEG" for number in range(count)]
    for name in names:
        path = root / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(generator.bytes(int(generator.uniform(0.2, 1.8) * mean)))
    (root / "names.txt").write_text("\n".join(names))
    pack_folder(root / "files", root / "pack")
    try:
        import lmdb
    except ModuleNotFoundError:
        return ["folder", "pack"]
    with lmdb.open(str(root / "lmdb"), map_size=1 << 30) as database, database.begin(write=True) as transaction:
        for name in names:
            transaction.put(name.encode(), (root / "files" / name).read_bytes())
    return ["folder", "pack", "lmdb"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=14_197_122, help="in the pack (default: ImageNet-22k's)")
    parser.add_argument("--listed", type=int, default=1_419_712, help="in the list, which needs gigabytes")
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        name, *values = arguments.worker
        json.dump(globals()[name](*values), sys.stdout)
        return
    with tempfile.TemporaryDirectory() as folder:
        write_index(Path(folder), arguments.images)
        index = sum(path.stat().st_size for path in Path(folder).iterdir())
        print(f"index of {arguments.images} images: {index / 1e6:.0f} MB on disk, shared by the processes of a host")
        header(
            "data set",
            "images",
            "processor s to build",
            "peak MB meanwhile, shared pages included",
            "MB of its own then",
            "MB a worker adds",
            "MB pickled",
        )
        for kind, images in (("pack", arguments.images), ("list", arguments.listed)):
            found = in_own_process(__file__, [], ["measure_memory", kind, images, folder])
            cells = [f"{found[key] / 1e6:.3g}" for key in ("peak", "own", "worker", "pickled")]
            row(kind, str(images), f"{found['seconds']:.1f}", *cells)
        theirs, ours = (
            in_own_process(__file__, [], ["measure_sampler", arguments.images, own]) for own in (False, True)
        )
        peaks = [f"{found['peak'] / 1e6:.0f} MB" for found in (theirs, ours)]
        print(f"\none permutation in each process: {peaks[0]} by mmengine's samplers, {peaks[1]} by ours")
    with tempfile.TemporaryDirectory(dir=".") as folder:  # on a disk: /tmp can be memory
        kinds = write_files(Path(folder))
        header("storage", "bytes an image", "reading calls an image", "page faults that wait, an image")
        for kind in kinds:
            found = in_own_process(__file__, [], ["measure_reads", kind, folder])
            row(kind, f"{found['bytes'] / 400:.0f}", f"{found['calls']:.1f}", f"{found['faults']:.1f}")


if __name__ == "__main__":
    main()
