"""Comparing masks of ``flex_attention``."""

import torch


def assert_same_blocks(actual, expected):
    assert actual.seq_lengths == expected.seq_lengths
    assert actual.BLOCK_SIZE == expected.BLOCK_SIZE
    for blocks in ("kv", "full_kv", "q", "full_q"):
        for what in ("num_blocks", "indices"):
            assert torch.equal(getattr(actual, f"{blocks}_{what}"), getattr(expected, f"{blocks}_{what}"))
