"""Which learning rate suits each backbone of nuclei_backbones.py? One seed each; that study takes the better one."""

_base_ = "nuclei_backbones.py"
seeds = [0]
variants = dict(
    _delete_=True,
    **{
        f"{name} {rate:g}": {**settings, "optim_wrapper.optimizer.lr": rate}
        for rate in (2e-3, 5e-4)
        for name, settings in _base_.variants.items()
    },
)
