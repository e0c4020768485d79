"""The scope ``eyetoy_mm`` in mmengine's registries; mmengine imports this file when it meets ``type='eyetoy_mm.X'``."""

try:
    from mmengine.registry import HOOKS as MMENGINE_HOOKS
    from mmengine.registry import MODELS as MMENGINE_MODELS
    from mmengine.registry import Registry
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"the OpenMMLab side of eyetoy_mm needs {error.name}, which is not installed: pip install 'eyetoy-mm[lite]' "
        "(eyetoy_mm.encoder works with torch alone)",
        name=error.name,
    ) from error

MODELS = Registry("model", parent=MMENGINE_MODELS, scope="eyetoy_mm", locations=["eyetoy_mm.backbones"])
HOOKS = Registry("hook", parent=MMENGINE_HOOKS, scope="eyetoy_mm", locations=["eyetoy_mm.engine.hooks"])
