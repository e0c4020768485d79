"""Schedules fit the data and the machine, and say why."""

import pytest

from eyetoy_mm.engine.recipes import TASKS, DataSize, Machine, choose_recipe

CPU, GPU = Machine(cores=2), Machine("cuda", 24.0, 16)


@pytest.mark.parametrize("machine", [CPU, GPU, Machine("mps", 0.0, 8)])
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("images", [2, 50, 118_000])
def test_every_recipe_can_be_run(task, images, machine):
    recipe = choose_recipe(task, DataSize(images, (640, 480)), machine)
    assert 1 <= recipe.batch <= images and 12 <= recipe.epochs <= 300 and 1 <= recipe.interval <= recipe.epochs
    assert min(recipe.scale) > 0 and recipe.crop % 32 == 0 and recipe.amp == bool(machine.accelerator)
    assert len(recipe.why) == 5 and 0 <= recipe.workers < machine.cores


def test_small_data_learn_longer_and_machines_make_larger_models():
    few, many = (choose_recipe("detection", DataSize(n, (640, 480)), CPU) for n in (50, 5000))
    assert few.epochs > many.epochs
    small, large = (choose_recipe("segmentation", DataSize(500, (2048, 1024)), machine) for machine in (CPU, GPU))
    assert (small.model, large.model) == ("demo", "tiny") and small.crop < large.crop
    assert small.scale == (512, 256) and large.scale == (1024, 512)


def test_scale_is_of_the_data():
    """Small images stay as they are; small objects want large images, as far as the images are."""
    assert choose_recipe("classification", DataSize(500, (32, 32)), GPU).crop == 32
    assert choose_recipe("detection", DataSize(500, (200, 160)), GPU).scale == (200, 160)
    usual = choose_recipe("detection", DataSize(500, (2000, 1500), [200.0] * 9), CPU)
    tiny = choose_recipe("detection", DataSize(500, (2000, 1500), [20.0] * 9), CPU)
    assert min(usual.scale) == 320 and min(tiny.scale) == 640
    assert "a tenth of the boxes are under 20 pixels" in " ".join(tiny.why)
