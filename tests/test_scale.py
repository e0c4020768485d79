"""The formula of docs/scale.md against numbers worked out by hand, and the page against the programs."""

from pathlib import Path

import pytest

pytest.importorskip("mmengine")

from benchmarks.scale import Cluster, Data, Measured, cost

CLUSTER = Cluster(
    gpus=16, gpus_per_node=8, gpu_tflops=100, utilisation=0.5, cores_per_gpu=4, network_gbit=80, storage_gbyte=2
)
DATA = Data(images=1601, size=1e5, pixels=(1, 1))
MODEL = Measured(parameters=25_000_000, flops=1e9, checkpoint=0, loading=0.002)


def test_by_hand():
    found = cost(DATA, MODEL, batch=10, epochs=3, cluster=CLUSTER)
    assert found.steps == 3 * 11  # 160 images a step, and one image left over
    assert found.compute == pytest.approx(10 * 6e9 / 50e12)  # 1.2 ms
    assert found.loading == pytest.approx(10 * 0.002 / 4)  # 5 ms
    assert found.gradient_bytes == 1e8  # of two nodes, each sends what it has once
    assert found.gradients == pytest.approx(1e8 / 10e9)  # 10 ms
    assert found.storage == pytest.approx(160 * 1e5 / 2e9)  # 8 ms
    assert found.slowest == "gradients"
    assert found.images_per_s == pytest.approx(16_000) and found.bytes_per_s == pytest.approx(1.6e9)
    assert found.hours == pytest.approx(33 * 0.010 / 3600) and found.bytes_read == pytest.approx(3 * 1601e5)


@pytest.mark.parametrize(
    ("changed", "slowest"),
    [(dict(network_gbit=1000), "storage"), (dict(network_gbit=1000, storage_gbyte=100), "loading"),
     (dict(network_gbit=1000, storage_gbyte=100, cores_per_gpu=64), "compute")],
)  # fmt: skip
def test_what_is_slowest(changed, slowest):
    assert cost(DATA, MODEL, 10, 3, Cluster(**(CLUSTER.__dict__ | changed))).slowest == slowest


def test_one_node_sends_nothing():
    assert cost(DATA, MODEL, 10, 3, Cluster(gpus=8)).gradient_bytes == 0


def test_the_page_has_the_tables_of_both_programs():
    page = (Path(__file__).parents[1] / "docs/scale.md").read_text()
    for program in ("packs", "scale"):
        table = page.partition(f"<!-- benchmarks/{program}.py: begin -->")[2].partition("<!--")[0]
        assert table.count("\n|") > 4, program
