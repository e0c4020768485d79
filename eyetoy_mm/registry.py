"""The scope ``eyetoy_mm`` in mmengine's registries; mmengine imports this file when it meets ``type='eyetoy_mm.X'``."""

from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import Registry

MODELS = Registry("model", parent=MMENGINE_MODELS, scope="eyetoy_mm", locations=["eyetoy_mm.backbones"])
