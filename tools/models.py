"""List the models that come with the package: ``eyetoy models``; ``--help`` says more."""

from eyetoy_mm.cli import run_tool

if __name__ == "__main__":
    run_tool("models")
