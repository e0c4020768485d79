"""Pack a folder of millions of files: ``eyetoy pack``; ``--help`` says more."""

from eyetoy_mm.cli import run_tool

if __name__ == "__main__":
    run_tool("pack")
