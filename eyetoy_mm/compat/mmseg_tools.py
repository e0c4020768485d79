"""Trap: two tools of mmseg that fail with everything it is released for.

What breaks, in mmseg 1.2.2:

* `browse_dataset`: `SegLocalVisualizer` paints labels into an array with the strides of the image, and the tool's image
  is a permuted tensor: OpenCV refuses ("Layout of the output array is incompatible");
* `get_flops`: it gives `mmengine.analysis.get_model_complexity_info` the shape of the input and the input itself, which
  mmengine refuses ("cannot be both set").

What we do: the visualizer gets the image in the layout that OpenCV takes; of a shape and inputs of its models, the
inputs count.

Delete this file when the supported mmsegmentation mends both.
"""

from __future__ import annotations

from importlib.util import find_spec
from types import ModuleType
from typing import Any

from eyetoy_mm.compat._import_hooks import Function, after_import, replace_function, replace_method


def needed() -> bool:
    """Whether mmseg is installed."""
    return find_spec("mmseg") is not None


def apply() -> None:
    """Mends both when they are imported."""
    if needed():
        after_import("mmseg.visualization.local_visualizer", _take_any_layout)
        after_import("mmengine.analysis.print_helper", _take_shape_and_inputs)


def _take_any_layout(visualization: ModuleType) -> None:
    def wrapper(original: Function) -> Function:
        def _draw_sem_seg(self: Any, image: Any, *args: Any, **kwargs: Any) -> Any:
            import numpy as np

            return original(self, np.ascontiguousarray(image), *args, **kwargs)

        return _draw_sem_seg

    replace_method(visualization.SegLocalVisualizer, "_draw_sem_seg", wrapper)


def _take_shape_and_inputs(analysis: ModuleType) -> None:
    replace_function(analysis, "get_model_complexity_info", _inputs_count)


def _inputs_count(original: Function) -> Function:
    def get_model_complexity_info(model: Any, input_shape: Any = None, inputs: Any = None, **kwargs: Any) -> Any:
        of_mmseg = any(cls.__module__.startswith("mmseg.") for cls in type(model).__mro__)
        return original(model, None if of_mmseg and inputs is not None else input_shape, inputs, **kwargs)

    return get_model_complexity_info
