"""Export a trained model to ONNX: ``eyetoy export``; ``--help`` says more."""

from eyetoy_mm.cli import run_tool

if __name__ == "__main__":
    run_tool("export")
