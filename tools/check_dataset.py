"""Open every file of a config's datasets and tell what is wrong: ``eyetoy check``; ``--help`` says more."""

from eyetoy_mm.cli import run_tool

if __name__ == "__main__":
    run_tool("check")
