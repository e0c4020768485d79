"""The operators of mmcv's compiled module, by PyTorch and torchvision; one file per family. See `compat.mmcv_ops`.

Names and arguments are those of mmcv's bindings (mmcv/ops/csrc/pytorch/pybind.cpp), as mmcv calls them: an operator
either returns its result or writes it into an argument. Each runs on any device and in any floating type; where mmcv's
own CPU code stops (half precision, double, no kernel at all), these go on.
"""
