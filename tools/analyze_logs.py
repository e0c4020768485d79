"""Draw the curves of runs: ``eyetoy analyze-logs``; ``--help`` says more."""

from eyetoy_mm.cli import run_tool

if __name__ == "__main__":
    run_tool("analyze-logs")
