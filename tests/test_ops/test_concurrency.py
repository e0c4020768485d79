"""The operator in several threads, and in processes that are forked or spawned where threads run already.

All is done in processes of their own with a time limit: what goes wrong here waits for ever.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from eyetoy_mm.ops import backend_cpp

ROOT = Path(__file__).parents[2]
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
BACKENDS = ["torch"] if isinstance(backend_cpp.KERNELS, str) else ["torch", "cpp"]

SETUP = """
import os, sys, threading, warnings
import torch
from eyetoy_mm.ops import neighborhood_attention

warnings.simplefilter("ignore")
backends = sys.argv[2:]
torch.set_num_threads(3)

def work(seed, backend, grad=True):
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(2, 40, 31, 2, 16, generator=generator).requires_grad_(grad) for _ in range(3))
    output = neighborhood_attention(q, k, v, 7, backend=backend)
    return [output.detach(), *(torch.autograd.grad(output.square().sum(), (q, k, v)) if grad else ())]

def same(one, other):
    return all(torch.allclose(a, b, atol=1e-5, rtol=1e-4) for a, b in zip(one, other, strict=True))

def expect(what, message="the results differ"):
    if not what:
        print(message, flush=True)
        os._exit(1)
"""

THREADS = """
expected = {(seed, backend): work(seed, backend) for seed in range(2) for backend in backends}
finished = []

def run(case):
    for _ in range(5):
        expect(same(work(*case), expected[case]))
    finished.append(case)

threads = [threading.Thread(target=run, args=(case,)) for case in expected]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
expect(set(finished) == set(expected), "not every thread came to its end")
"""

# PyTorch's own operators wait for their threads in a forked process, and so would `torch`, which is made of them.
FORK = """
q = torch.randn(2, 40, 31, 2, 16)
expected = neighborhood_attention(q, q, q, 7, backend="cpp")  # from here on OpenMP has threads; a fork does not
child = os.fork()
if not child:
    output = neighborhood_attention(q, q, q, 7, backend="cpp")
    torch.set_num_threads(1)
    os._exit(0 if same([output], [expected]) else 1)
expect(os.waitpid(child, 0)[1] == 0, "wrong in the child")
expect(same([neighborhood_attention(q, q, q, 7, backend="cpp")], [expected]), "wrong in the parent, afterwards")
"""

WORKERS = """
class Attended(torch.utils.data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, seed):
        return [work(seed, backend) for backend in backends]

if __name__ == "__main__":
    expected = [[work(seed, backend) for backend in backends] for seed in range(4)]
    context = sys.argv[1]
    loader = torch.utils.data.DataLoader(Attended(), batch_size=None, num_workers=1, multiprocessing_context=context)
    for found, right in zip(loader, expected, strict=True):
        expect(all(map(same, found, right)))
"""


def run(code, folder, context=""):
    """In a file: spawned processes import it."""
    script = folder / "script.py"
    script.write_text(SETUP + code)
    environment = os.environ | dict(PYTHONPATH=str(ROOT), OMP_NUM_THREADS="3", OMP_WAIT_POLICY="passive")
    process = subprocess.run(
        [sys.executable, str(script), context, *BACKENDS], capture_output=True, text=True, env=environment, timeout=120
    )
    assert process.returncode == 0, process.stdout + process.stderr


@needs_fork
def test_threads_at_once_and_forks_where_openmp_runs(tmp_path):
    fork = FORK if "cpp" in BACKENDS else ""
    run(THREADS + fork + WORKERS, tmp_path, "fork")


@pytest.mark.slow
def test_spawned_workers(tmp_path):
    run(WORKERS, tmp_path, "spawn")
