"""Time configs and exported files side by side: ``eyetoy benchmark``; ``--help`` says more."""

from eyetoy_mm.cli import run_tool

if __name__ == "__main__":
    run_tool("benchmark")
