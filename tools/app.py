"""Serve a page that shows what a model predicts and attends to: ``eyetoy app``; ``--help`` says more."""

from eyetoy_mm.cli import run_tool

if __name__ == "__main__":
    run_tool("app")
