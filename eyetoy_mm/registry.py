"""The scope ``eyetoy_mm`` in mmengine's registries; mmengine imports this file when it meets ``type='eyetoy_mm.X'``."""

from typing import Any

try:
    from mmengine.registry import DATASETS as MMENGINE_DATASETS
    from mmengine.registry import HOOKS as MMENGINE_HOOKS
    from mmengine.registry import LOOPS as MMENGINE_LOOPS
    from mmengine.registry import MODELS as MMENGINE_MODELS
    from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS
    from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
    from mmengine.registry import VISBACKENDS as MMENGINE_VISBACKENDS
    from mmengine.registry import Registry
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"the OpenMMLab side of eyetoy_mm needs {error.name}, which is not installed: pip install 'eyetoy-mm[lite]' "
        "(eyetoy_mm.encoder works with torch alone)",
        name=error.name,
    ) from error

MODELS = Registry("model", parent=MMENGINE_MODELS, scope="eyetoy_mm", locations=["eyetoy_mm.backbones"])
DATASETS = Registry(
    "dataset",
    parent=MMENGINE_DATASETS,
    scope="eyetoy_mm",
    locations=["eyetoy_mm.datasets.cifar", "eyetoy_mm.datasets.class_folders"],  # they need mmpretrain
)
HOOKS = Registry("hook", parent=MMENGINE_HOOKS, scope="eyetoy_mm", locations=["eyetoy_mm.engine.hooks"])
LOOPS = Registry("loop", parent=MMENGINE_LOOPS, scope="eyetoy_mm", locations=["eyetoy_mm.engine.exact_resume"])
VISBACKENDS = Registry(
    "vis backend", parent=MMENGINE_VISBACKENDS, scope="eyetoy_mm", locations=["eyetoy_mm.engine.tracking"]
)
OPTIM_WRAPPERS = Registry(
    "optimizer wrapper", parent=MMENGINE_OPTIM_WRAPPERS, scope="eyetoy_mm", locations=["eyetoy_mm.engine.optim"]
)
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    "optimizer wrapper constructor",
    parent=MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS,
    scope="eyetoy_mm",
    locations=["eyetoy_mm.engine.optim"],
)


def type_name(part: Any) -> str:
    """Name of the class that a dict is built from, without scope or module; empty where it names none.

    It is a text in most configs, and the class in mmengine's pure Python ones.
    """
    kind = part.get("type") if isinstance(part, dict) else None
    name = kind if isinstance(kind, str) else getattr(kind, "__name__", "")
    return name.rpartition(".")[2]
