"""Compare variants of a model at equal cost: ``eyetoy compare``; ``--help`` says more."""

from eyetoy_mm.cli import run_tool

if __name__ == "__main__":
    run_tool("compare")
