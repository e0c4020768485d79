"""Trap: panopticapi is not on the package index.

What breaks: mmdet 3.3.0 takes panoptic annotations apart and evaluates them (`LoadPanopticAnnotations`,
`CocoPanopticMetric`) with panopticapi, which can be had from its repository alone: `pip install mmdet` does not
bring it, and every panoptic config ends in "panopticapi is not installed".

What we do: `panopticapi` and the two modules that mmdet takes from it, `utils` and `evaluation`, are imported from
`_panopticapi.py`. The real one, where installed, is found first.

Delete this file, and `_panopticapi.py`, when the supported mmdet depends on a package that has them.
"""

from importlib.util import find_spec
from pathlib import Path

from eyetoy_mm.compat._import_hooks import find_real_spec, stand_in_for


def needed() -> bool:
    """Whether mmdet is installed and panopticapi is not."""
    return find_spec("mmdet") is not None and find_real_spec("panopticapi") is None


def apply() -> None:
    """Lets `panopticapi` be imported from our stand-in where there is no real one."""
    if needed():
        for name in ("panopticapi", "panopticapi.utils", "panopticapi.evaluation"):
            stand_in_for(name, Path(__file__).with_name("_panopticapi.py"))
