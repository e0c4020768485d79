"""Tell what an installation and its machine can do: ``eyetoy doctor``; ``--help`` says more."""

from eyetoy_mm.cli import run_tool

if __name__ == "__main__":
    run_tool("doctor")
