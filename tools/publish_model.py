"""Write the weights of a checkpoint for others: ``eyetoy publish``; ``--help`` says more."""

from eyetoy_mm.cli import run_tool

if __name__ == "__main__":
    run_tool("publish")
