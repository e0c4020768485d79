_base_ = "mmpretrain::_base_/default_runtime.py"
custom_imports = dict(imports=["eyetoy_mm"])  # before mmpretrain: it supplies what mmcv-lite lacks
custom_hooks = [dict(type="eyetoy_mm.CheckClsLabelsHook"), dict(type="eyetoy_mm.StopOnNonFiniteHook")]
