"""A sequence, an image and a volume task that need sight of the whole map, each learned by a small encoder in seconds.

What decides the label may be anywhere, in two of the tasks in several places at once, and the head reads where nothing
but the global tokens can have brought it: the context token, or the features of the last step.
"""

from collections import deque

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from eyetoy_mm.encoder import Encoder1D, Encoder2D, Encoder3D
from eyetoy_mm.params import ConvParams, EncoderParams, GlobalAttentionTransformerParams, msnat_params

NOISE, MARK = 0.3, 3.0  # deviation of the background, and how far a mark stands out
CHANCE = 0.25  # every task has four classes, equally frequent


def which_mark_comes_first(count, generator):
    """Sequences of 24 steps in four channels, one mark in each channel, three steps or more apart."""
    x = NOISE * torch.randn(count, 4, 24, generator=generator)
    place = 3 * torch.rand(count, 8, generator=generator).argsort(dim=1)[:, :4]
    x.scatter_add_(2, place[:, :, None], torch.full((count, 4, 1), MARK))
    return x, place.argmin(dim=1)


def in_which_direction_the_other_mark_lies(count, generator):
    """Images of 8 x 8 in two channels, one mark in each, three rows and three columns or more apart."""
    x = NOISE * torch.randn(count, 2, 8, 8, generator=generator)
    first, second = _two_apart(count, generator), _two_apart(count, generator)  # rows, columns: (count, 2 marks)
    samples = torch.arange(count)
    for mark in range(2):
        x[samples, mark, first[:, mark], second[:, mark]] += MARK
    below, right = first[:, 1] > first[:, 0], second[:, 1] > second[:, 0]
    return x, 2 * below.long() + right.long()


def _two_apart(count, generator):
    """Two of the places 0 to 7, three or more apart, for each sample."""
    pairs = torch.tensor([(a, b) for a in range(8) for b in range(8) if abs(a - b) >= 3])
    return pairs[torch.randint(len(pairs), (count,), generator=generator)]


def how_a_line_runs(count, generator):
    """Volumes of 6 x 6 x 6 with a line of three voxels at a random place: along an axis, or across all three."""
    x = NOISE * torch.randn(count, 1, 6, 6, 6, generator=generator)
    label = torch.randint(4, (count,), generator=generator)
    place = torch.randint(1, 5, (count, 3), generator=generator)
    direction = torch.tensor([(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1)])[label]
    for step in (-1, 0, 1):
        depth, row, column = (place + step * direction).T
        x[torch.arange(count), 0, depth, row, column] += MARK
    return x, label


def context(features, context_token):
    return context_token[:, 0]


def last_step(features, context_token):
    """The features of one position, whose windows end in the middle of the sequence."""
    return features[:, :, -1]


class Classifier(nn.Module):
    """A small encoder and a linear head on what ``read`` takes of its output."""

    def __init__(self, cls, channels, width, windows, read):
        super().__init__()
        params = EncoderParams(
            initial_conv_params=ConvParams(3, in_channels=channels, out_channels=width),
            transformer_params=(msnat_params(width, width, windows, merging=(1, 2), num_heads=2, dropout=0.0),),
            global_attention_params=GlobalAttentionTransformerParams(width, num_heads=2, num_layers=2, dropout=0.0),
            input_channels=channels,
            output_channels=width,
        )
        self.encoder = cls(**params.__dict__)
        self.read = read
        self.head = nn.Linear(width, 4)

    def forward(self, x):
        features, context_token = self.encoder(x)
        return self.head(self.read(features, context_token))


def learn(model, task, steps, batch, lr):
    """Train on fresh samples at every step, until those of the last ones are told right before they are learnt from."""
    generator, lately = torch.Generator().manual_seed(1), deque(maxlen=8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.2)
    for _ in range(steps):
        x, label = task(batch, generator)
        optimizer.zero_grad()
        scores = model(x)
        F.cross_entropy(scores, label).backward()
        optimizer.step()
        schedule.step()
        lately.append((scores.argmax(dim=1) == label).float().mean().item())
        if len(lately) == lately.maxlen and sum(lately) / len(lately) > 0.985:
            return


@torch.no_grad()
def accuracy(model, task, count=512):
    x, label = task(count, torch.Generator().manual_seed(2))  # other samples than those of training
    return (model(x).argmax(dim=1) == label).float().mean().item()


CASES = {
    "sequence": (
        which_mark_comes_first,
        Encoder1D,
        dict(channels=4, width=32, windows=(7, 5), read=last_step),
        dict(steps=280, batch=64, lr=5e-3),
    ),
    "image": (
        in_which_direction_the_other_mark_lies,
        Encoder2D,
        dict(channels=2, width=32, windows=(5, 4), read=context),
        dict(steps=200, batch=32, lr=3e-3),
    ),
    "volume": (
        how_a_line_runs,
        Encoder3D,
        dict(channels=1, width=24, windows=(3, 2), read=context),
        dict(steps=80, batch=24, lr=3e-3),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_small_encoder_learns_a_task_that_needs_the_whole_map(case):
    task, cls, numbers, training = CASES[case]
    model = Classifier(cls, **numbers)
    assert abs(accuracy(model, task) - CHANCE) < 0.1
    learn(model, task, **training)
    assert accuracy(model, task) > 0.95


def test_only_global_tokens_carry_the_whole_sequence_to_its_last_step():
    """Without them no training could help: the windows there reach over 11 steps of 24."""
    model = Classifier(Encoder1D, **CASES["sequence"][2])
    x = torch.randn(1, 4, 24, requires_grad=True)

    def seen():
        gradient = torch.autograd.grad(model(x).square().sum(), x)[0]
        return gradient[0].any(dim=0).nonzero().flatten().tolist()

    assert seen() == list(range(24))
    model.encoder.global_attention = None
    assert seen() == list(range(13, 24))
