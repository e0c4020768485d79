"""Run configs from end to end, small: ``eyetoy dry-run``; ``--help`` says more."""

from eyetoy_mm.cli import run_tool

if __name__ == "__main__":
    run_tool("dry-run")
