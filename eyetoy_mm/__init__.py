"""EyeToy for OpenMMLab: multi-scale neighborhood attention backbones for detection, segmentation and classification."""

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from eyetoy_mm import compat
from eyetoy_mm.compat._import_hooks import after_import
from eyetoy_mm.version import __version__

__all__ = ["__version__"]


def _know_packs(module: ModuleType) -> None:
    """Addresses ``pack://...`` are for every config, those of users and of the toolboxes' own tools too."""
    import_module("eyetoy_mm.datasets.pack_backend")


compat.activate()
if find_spec("mmengine") is not None:
    after_import("mmengine.fileio", _know_packs)
