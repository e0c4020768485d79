"""NAT in the demo's place: the same recipe and photos, and about as many parameters."""

_base_ = "upernet_eyetoy-demo_sample.py"
model = dict(
    backbone=dict(
        _delete_=True,
        type="eyetoy_mm.NAT",
        arch=None,
        embed_dims=32,
        depths=(1, 1, 2, 1),
        num_heads=(1, 2, 4, 8),
        mlp_ratio=2,
    ),
    decode_head=dict(in_channels=[32, 64, 128, 256]),
)
