"""The part of the model that knows mmengine: registered backbones for mmseg, mmdet and mmpretrain."""

import eyetoy_mm.registry  # noqa: F401 - first: it says what is missing where mmengine is
from eyetoy_mm.backbones import complexity  # noqa: F401 - teaches mmengine to count FLOPs
from eyetoy_mm.backbones.eyetoy import EyeToy
from eyetoy_mm.backbones.loading import load_checkpoint as _load_checkpoint
from eyetoy_mm.backbones.log import attach as _attach_log
from eyetoy_mm.backbones.nat import NAT, DiNAT, DiNAT_s
from eyetoy_mm.compat.partial_loading import use as _load_with

__all__ = ["NAT", "DiNAT", "DiNAT_s", "EyeToy"]

_attach_log()
_load_with(_load_checkpoint)
