"""Imported first, lets a program of this folder find the package in the checkout around it where none is installed."""

import sys
from importlib.util import find_spec
from pathlib import Path

if find_spec("eyetoy_mm") is None:
    sys.path.append(str(Path(__file__).resolve().parents[1]))
