_base_ = "mmseg::_base_/default_runtime.py"
custom_imports = dict(imports=["eyetoy_mm"])  # before mmseg: it supplies what mmcv-lite lacks
custom_hooks = [dict(type="eyetoy_mm.CheckSegLabelsHook"), dict(type="eyetoy_mm.StopOnNonFiniteHook")]
