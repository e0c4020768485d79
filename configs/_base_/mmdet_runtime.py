_base_ = "mmdet::_base_/default_runtime.py"
custom_imports = dict(imports=["eyetoy_mm"])  # before mmdet: it supplies what mmcv-lite lacks
custom_hooks = [dict(type="eyetoy_mm.CheckDetDataHook"), dict(type="eyetoy_mm.StopOnNonFiniteHook")]
