"""Trained models as files that run without PyTorch: the operator's meaning there, whole models, checks of each file."""
