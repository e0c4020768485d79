"""Print a config without running it: ``eyetoy show-config``; ``--help`` says more."""

from eyetoy_mm.cli import run_tool

if __name__ == "__main__":
    run_tool("show-config")
