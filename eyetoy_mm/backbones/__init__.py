"""The part of the model that knows mmengine: registered backbones that mmseg, mmdet and mmpretrain build from configs."""

from eyetoy_mm.backbones.eyetoy import EyeToy

__all__ = ["EyeToy"]
