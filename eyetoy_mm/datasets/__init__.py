"""Datasets for mmpretrain, and splits of folders of images; only what is a dataset imports mmpretrain."""
