# mmdet's Mask2Former for things and stuff of COCO, without the data, schedule and runtime that stand in the same file.
_base_ = "mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py"
__model = _base_.pop("model")
_base_.clear()
model = __model
