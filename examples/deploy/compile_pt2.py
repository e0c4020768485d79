"""Compile a program of `eyetoy export --out model.pt2 --size H,W` for the processor of this machine; PyTorch alone.

    python compile_pt2.py model.pt2 compiled.pt2

segment_pt2.cpp loads what comes out. It runs on processors with the same instructions as this one, and tells paths of
this machine: compile where it runs.
"""

import sys

import torch

program, compiled = sys.argv[1:]
facts = {"eyetoy.palette": ""}  # all that the file says of itself joins what is asked for
loaded = torch.export.load(program, extra_files=facts)
texts = {key: text if isinstance(text, str) else text.decode() for key, text in facts.items()}
torch._inductor.aoti_compile_and_package(
    loaded, package_path=compiled, inductor_configs={"aot_inductor.metadata": texts}
)
