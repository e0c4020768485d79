"""Make or refresh the environment that ``make demo`` and ``make test`` run in (``.venv``). Standard library only.

It ends with PyTorch, mmcv-lite, the OpenMMLab packages, the development tools and this checkout (editable), in the
versions of ``requirements/constraints.txt``. No compiler is needed; where there is one, our kernels are compiled.
Outside the folder, the only thing that may be installed is Debian's package for ``python3 -m venv``, where that is
missing. A run that was cut short is continued by the next one; a run with nothing to do takes a fraction of a second.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "requirements" / "constraints.txt"
# A change in any of these brings the environment up to date.
KERNELS = sorted((ROOT / "eyetoy_mm" / "ops" / "cpp").glob("*[ph]"))
INPUTS = (ROOT / "setup.py", CONSTRAINTS, Path(__file__).resolve(), *KERNELS)
STATE = "eyetoy-mm.json"  # in the environment: says that it is ours, and what it was made from
NEEDED_GIB = 10  # the environment, and its downloads while they are unpacked
THIS_PYTHON = "{}.{}".format(*sys.version_info)
# Same import names as what is installed here, other distributions: a compiled mmcv, and the maintained forks.
FOREIGN = re.compile(r"(mmcv|mmcv_full|onedl_mm\w+)-[^-]+\.dist-info")
IMPORTS = "torch torchvision cv2 eyetoy_mm mmengine mmcv mmdet mmseg mmpretrain"


def main() -> int:
    """Parse the command line, and bring the environment up to date if it is not."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("env", type=Path, help="folder of the environment")
    parser.add_argument("--same-python", action="store_true", help="make it anew if it has another Python than this")
    args = parser.parse_args()
    env = Path(os.path.abspath(args.env))  # not resolved: its path may be a link on purpose

    with only_one():
        state = read_state(env)
        kept = state["python"] if state and not args.same_python else ""
        target = wanted_state(kept or THIS_PYTHON)
        if state == target and (env / "pyvenv.cfg").is_file() and os.access(env / "bin" / "python", os.X_OK):
            return 0
        return make(env, state, target)


def make(env: Path, state: dict[str, str] | None, target: dict[str, str]) -> int:
    """Create what is missing, install, check, and only then write the state that says so."""
    began = time.monotonic()
    if state is None and env.exists() and any(env.iterdir()):
        return fail(
            f"{env} exists and was not made by this Makefile, so nothing is installed into it.",
            "Use it as it is:   make demo PY=" + shlex.quote(str(env / "bin" / "python")),
            "or another folder: make demo VENV=.venv-eyetoy",
        )
    if foreign := sorted(p.name for p in env.glob("lib/python*/site-packages/*") if FOREIGN.fullmatch(p.name)):
        return fail(
            f"{env} holds {foreign[0]}, which this would overwrite, so nothing was done.",
            "Use it as it is:   make demo PY=" + shlex.quote(str(env / "bin" / "python")),
            f"or start over:     make clean-env   (removes {env})",
        )
    python = env / "bin" / "python"
    if state is None or not usable(python, state, target):
        if not venv_module():
            return 1
        step(f"Creating {env} with Python {sys.version.split()[0]}")
        env.mkdir(parents=True, exist_ok=True)
        if (free := shutil.disk_usage(env).free / 2**30) < NEEDED_GIB:
            print(f"Only {free:.1f} GiB are free there; about {NEEDED_GIB} are needed.", flush=True)
        # First: where this is cut off, the folder is known as ours. With no Python: so that it is not continued.
        write_state(env, {**target, "python": "", "complete": ""})
        clear(env)
        run([sys.executable, "-m", "venv", env])
        target = {**target, "python": THIS_PYTHON}
        if not usable(python, target, target):
            return fail(f"{python} does not work as the Python of {env}; nothing was installed.")

    write_state(env, {**target, "complete": ""})
    scratch = env / "tmp"  # not /tmp, which may be small and in memory
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    os.environ.update(PIP_USER="0", PIP_NO_INPUT="1", PIP_DISABLE_PIP_VERSION_CHECK="1", TMPDIR=str(scratch))
    os.environ["PIP_REQUIRE_VIRTUALENV"] = "1"  # whatever happens, never into the Python that `env` was made with
    for name in ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX"):
        os.environ.pop(name, None)
    pip: list[str | Path] = [python, "-m", "pip", "install", "--constraint", CONSTRAINTS]

    step("Installing pip and the build tools")
    run([*pip, "pip", "setuptools", "wheel"])

    step("Installing PyTorch, OpenMMLab and the development tools (about 3 GB the first time)")
    headless_opencv(scratch)
    # --only-binary: rather no installation than one that compiles what it depends on.
    run([*pip, "--only-binary", ":all:", "--find-links", scratch, "--no-build-isolation", "--editable", ".[lite,dev]"])

    step("Installing NATTEN (optional)")
    # Without a visible GPU its build does not compile CUDA kernels. Not cached: a later build with kernels would
    # otherwise get this one. Whatever of this version is there, kernels included, is kept.
    no_kernels = {**os.environ, "NATTEN_CUDA_ARCH": "", "CUDA_VISIBLE_DEVICES": ""}
    natten = [*pip, "--no-cache-dir", "--no-deps", "--no-build-isolation", "natten"]
    if subprocess.run(natten, env=no_kernels, cwd=ROOT).returncode != 0:
        print("NATTEN could not be installed. Everything works without it: EyeToy's own kernels are used.", flush=True)

    step("Checking that everything imports")
    run([python, "-c", "\n".join(f"import {name}" for name in IMPORTS.split())])
    shutil.rmtree(scratch, ignore_errors=True)
    write_state(env, target)
    step(f"{env} is ready ({time.monotonic() - began:.0f} s)")
    return 0


def wanted_state(python: str) -> dict[str, str]:
    """The state of an environment that needs nothing."""
    digest = hashlib.sha256(b"\0".join(path.read_bytes() for path in INPUTS)).hexdigest()
    return {"made_by": "tools/bootstrap.py", "python": python, "checkout": str(ROOT), "complete": digest}


def usable(python: Path, state: dict[str, str], target: dict[str, str]) -> bool:
    """Whether the environment can be continued: same checkout, the Python that is asked for, and a working pip.

    ``bin/python`` of an environment that was cut off while it was made or removed may be a mere link to the Python it
    was made with, and pip would install into that one. So it has to say that it is this environment's.
    """
    if any(state[key] != target[key] for key in ("python", "checkout")):
        return False
    env = python.parent.parent
    code = "import sys, pip; print(sys.prefix); print(sys.base_prefix); print('{}.{}'.format(*sys.version_info))"
    try:
        asked = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True)
    except OSError:  # its Python is gone
        return False
    if asked.returncode != 0:
        return False
    prefix, base_prefix, version = asked.stdout.splitlines()
    return os.path.samefile(prefix, env) and prefix != base_prefix and version == target["python"]


def clear(env: Path) -> None:
    """Empty the folder, but for the state: that is what says that it may be emptied."""
    for path in env.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != STATE:
            path.unlink()


def read_state(env: Path) -> dict[str, str] | None:
    """The state that was written last, or None in a folder that is not ours."""
    try:
        return dict(json.loads((env / STATE).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def write_state(env: Path, state: dict[str, str]) -> None:
    """Write the state in one go."""
    part = env / f"{STATE}.part"
    part.write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
    part.replace(env / STATE)


def venv_module() -> bool:
    """Whether this Python can make environments, if need be after installing Debian's package for it."""
    if importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip"):
        return True
    if sys.prefix != "/usr" or not shutil.which("apt-get"):
        fail(f"{sys.executable} has no venv and ensurepip modules. Try another: make PYTHON=python3.12 demo")
        return False
    # The distribution's own Python has one package; every other (python3.12 from elsewhere) has one by its version.
    is_system_python = os.path.realpath("/usr/bin/python3") == os.path.realpath(sys.executable)
    package = "python3-venv" if is_system_python else f"python{THIS_PYTHON}-venv"
    root = os.geteuid() == 0
    command = ["apt-get", "install", "-y", "--no-install-recommends", package]
    if root or (shutil.which("sudo") and subprocess.run(["sudo", "-n", "true"], capture_output=True).returncode == 0):
        step(f"Python has no venv module: installing {package}")
        prefix = ([] if root else ["sudo", "-n"]) + ["env", "DEBIAN_FRONTEND=noninteractive"]
        for attempt in (["apt-get", "update"], command):  # a failed update is no reason not to try
            done = subprocess.run([*prefix, *attempt], stdin=subprocess.DEVNULL).returncode == 0
        importlib.invalidate_caches()
        if done and importlib.util.find_spec("ensurepip"):
            return True
    hint = " ".join(command[:3] + command[4:])
    fail("Python has no venv module (a package of its own on Debian and Ubuntu). Please run", f"    sudo {hint}")
    return False


def headless_opencv(folder: Path) -> None:
    """Write a wheel ``opencv-python`` that holds nothing and requires ``opencv-python-headless``.

    mmengine and mmcv ask for opencv-python, whose build with windows needs system libraries (libGL, libX11, GLib) that
    a bare machine lacks. The headless build is the same cv2 without windows. pip prefers `1.2+headless` to `1.2`, so
    that this wheel is taken; the pin `==1.2` and `pip check` accept it.
    """
    pin = re.search(r"^opencv-python-headless==(\S+)", CONSTRAINTS.read_text(encoding="utf-8"), re.MULTILINE)
    if pin is None:
        raise SystemExit(f"{CONSTRAINTS} has no line opencv-python-headless==...")
    version = pin.group(1)
    info = f"opencv_python-{version}+headless.dist-info"
    summary = "Stands for opencv-python where opencv-python-headless is installed"
    files = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: opencv-python\nVersion: {version}+headless\n"
        f"Summary: {summary}\nRequires-Dist: opencv-python-headless=={version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: eyetoy-mm\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / f"opencv_python-{version}+headless-py3-none-any.whl", "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)


@contextmanager
def only_one() -> Iterator[None]:
    """Let one run at a time work on a checkout's environment; `make test` beside `make demo` waits."""
    with open(__file__, encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            print("Waiting for another make, which is working on the environment.", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def step(text: str) -> None:
    """Say what comes next."""
    print(f"\n==> {text}", flush=True)


def run(command: list[str | Path]) -> None:
    """Run a command in the checkout; where it fails, say so and stop."""
    code = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL).returncode
    if code != 0:
        fail(f"This failed ({code=}): {shlex.join(map(str, command))}", "Run make again to continue where it stopped.")
        raise SystemExit(1)


def fail(*lines: str) -> int:
    """Print an error and give the exit status that goes with it."""
    print("\n" + "\n".join(lines), file=sys.stderr, flush=True)
    return 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(fail("Interrupted. Run make again to continue."))
