"""Makes the released OpenMMLab packages run on today's PyTorch.

Each trap has its own file, which says what breaks, where, and when the file can be deleted:

* `mmcv_ops`: mmcv-lite has no compiled ops, and without them mmdet.models and mmseg.models do not import;
* `sync_bn_alone`: mmcv's synchronised batch norm does not build in a process of its own;
* `checkpoint_loading`: mmengine cannot load its own checkpoints with torch >= 2.6, and opens others unsafely;
* `safetensors_files`: mmengine reads pickles, and no safetensors;
* `partial_loading`: mmengine loads what fits of a checkpoint, nothing of it too, and goes on;
* `data_files`: mmengine and the toolboxes run what YAML, pickles and the configs in checkpoints say;
* `whole_checkpoints`: a run that is killed while it saves leaves half a file, or none;
* `classes_by_path`: mmengine cannot read some of the configs that it writes;
* `flop_handles`: mmengine's FLOP counter passes over attention as PyTorch has it since 2.0;
* `image_sizes`: images of any size are decoded, whatever memory that takes;
* `downstream_configs`: mmengine finds `_base_ = 'mmdet::...'`, but not `'eyetoy_mm::...'`;
* `inference_scopes`: each toolbox's inference looks for transforms in the scope of the model that was opened last;
* `model_zoo`: each toolbox lists and builds the models of its own zoo, by name, but not ours;
* `inference_functions`: the toolboxes' inference functions prepare images by other places of a config than the Runner;
* `mmseg_tools`: two tools of mmseg fail with everything it is released for;
* `norm_without_eps`: PyTorch refuses batch norms with an eps of 0, which two configs of mmdet have;
* `lost_gradients`: some operators of mmcv lose a gradient;
* `ssd_head`: SSD of mmdet 3.3.0 does not predict;
* `numpy_names`: files of mmcv, mmdet and mmpretrain use names and conversions that NumPy 2 no longer has;
* `scipy_names`: tables of relative positions are fitted to another window by a function that SciPy no longer has;
* `pkg_resources_shim`: mmengine needs pkg_resources, which setuptools >= 82 no longer has;
* `multimodal_models`: mmpretrain and mmdet do not import where transformers 5 is installed;
* `mmseg_text_packages`: mmseg needs two packages that it does not declare;
* `panoptic_api`: mmdet needs one for panoptic segmentation that the package index does not have.

Importing this package, and `activate`, import neither torch nor any OpenMMLab package: the traps are defused by import
hooks, in the moment in which a package that has one is imported.
"""

from eyetoy_mm.compat import (
    checkpoint_loading,
    classes_by_path,
    data_files,
    downstream_configs,
    flop_handles,
    image_sizes,
    inference_functions,
    inference_scopes,
    lost_gradients,
    mmcv_ops,
    mmseg_text_packages,
    mmseg_tools,
    model_zoo,
    multimodal_models,
    norm_without_eps,
    numpy_names,
    panoptic_api,
    partial_loading,
    pkg_resources_shim,
    safetensors_files,
    scipy_names,
    ssd_head,
    sync_bn_alone,
    whole_checkpoints,
)

__all__ = ["activate"]

_TRAPS = (
    mmcv_ops,
    sync_bn_alone,
    checkpoint_loading,
    safetensors_files,
    partial_loading,
    data_files,
    image_sizes,
    whole_checkpoints,
    flop_handles,
    downstream_configs,
    model_zoo,
    inference_scopes,
    classes_by_path,
    inference_functions,
    norm_without_eps,
    lost_gradients,
    numpy_names,
    scipy_names,
    pkg_resources_shim,
    mmseg_text_packages,
    mmseg_tools,
    multimodal_models,
    panoptic_api,
    ssd_head,
)


def activate() -> None:
    """Defuses every trap that is there; `import eyetoy_mm` calls it, and calling it again changes nothing."""
    for trap in _TRAPS:
        trap.apply()
