"""Show what a model looks at: ``eyetoy attention``; ``--help`` says more."""

from eyetoy_mm.cli import run_tool

if __name__ == "__main__":
    run_tool("attention")
