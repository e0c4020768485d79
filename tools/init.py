"""Look at a folder of your own data and write a config for it: ``eyetoy init``; ``--help`` says more."""

from eyetoy_mm.cli import run_tool

if __name__ == "__main__":
    run_tool("init")
