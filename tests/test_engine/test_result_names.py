"""Results of several processes get the names that one process gives, and none twice."""

import pytest

pytest.importorskip("mmengine")

from eyetoy_mm.engine.hooks.result_names import ResultNames

IMAGES = ["a.jpg", "a.png", "b/a.png", "b.png", "a.jpg", "a_.png", "c.png"]
NAMES = ["a", "a_", "b/a", "b", "a__", "a___", "c"]


class Folder:
    data_prefix = dict(img_path="/data")

    def __init__(self, tells: bool = True) -> None:
        if tells:
            self.get_data_info = lambda index: dict(img_path=f"/data/{IMAGES[index]}")

    def __len__(self) -> int:
        return len(IMAGES)


def written(monkeypatch, world_size: int, dataset: Folder, order: list[int], every: int = 1) -> dict[int, str]:
    """Name by position of what is written by processes that a sampler gives as many images each."""
    found = {}
    dealt = (order * world_size)[: -(-len(order) // world_size) * world_size]
    monkeypatch.setattr("mmengine.dist.get_world_size", lambda: world_size)
    for rank in range(world_size):
        monkeypatch.setattr("mmengine.dist.get_rank", lambda rank=rank: rank)
        names = ResultNames(dataset)
        for position, index in names.once(dealt[rank::world_size]):
            if position % every == 0:
                assert position not in found
                found[position] = str(names.target(position, f"/data/{IMAGES[index]}"))
    return dict(sorted(found.items()))


@pytest.mark.parametrize("world_size", [1, 2, 3, 5, 9])
def test_names_are_those_of_one_process(world_size, monkeypatch):
    order = list(range(len(IMAGES)))
    assert written(monkeypatch, world_size, Folder(), order) == dict(enumerate(NAMES))
    assert written(monkeypatch, world_size, Folder(), order, every=3) == {0: "a", 3: "b", 6: "c"}


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("tells", [True, False])
def test_none_is_given_twice_in_another_order(world_size, tells, monkeypatch):
    order = [2, 1, 0, 6, 5, 4, 3] if tells else list(range(len(IMAGES)))
    found = written(monkeypatch, world_size, Folder(tells), order)
    assert len(set(found.values())) == len(IMAGES)
    for position, name in found.items():
        assert name.startswith(IMAGES[order[position]].removesuffix(".png").removesuffix(".jpg"))


def test_images_without_a_file_have_their_number(monkeypatch):
    dataset = Folder()
    dataset.get_data_info = lambda index: dict(img=object())
    monkeypatch.setattr("mmengine.dist.get_world_size", lambda: 2)
    monkeypatch.setattr("mmengine.dist.get_rank", lambda: 1)
    names = ResultNames(dataset)
    assert [str(names.target(position, None)) for position, _ in names.once([0, 1])] == ["000001", "000003"]
