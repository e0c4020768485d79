"""EyeToy for OpenMMLab: multi-scale neighborhood attention backbones for detection, segmentation and classification."""

from eyetoy_mm import compat
from eyetoy_mm.version import __version__

compat.activate()

__all__ = ["__version__"]
