"""The configs of docs/your-data.md run as they stand, from the data to a prediction."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import eyetoy_mm  # noqa: F401 - before mmseg and mmdet: supplies what mmcv-lite lacks
from eyetoy_mm.engine.dry_run import SAMPLE, STAGES, dry_run_apart, photos_by_largest_object

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"```python\n# configs/(my_\w+\.py)\n(.*?)```", re.DOTALL)
CONFIGS = dict(BLOCK.findall((ROOT / "docs/your-data.md").read_text()))
# The same, small enough for a test.
DEMO = {
    "my_segmentation.py": """
model.update(backbone=dict(arch=dict(type="demo")))
model["decode_head"].update(in_channels=[32, 64, 128, 192], channels=32)
model["auxiliary_head"].update(in_channels=128)
""",
    "my_detection.py": """
model.update(backbone=dict(arch=dict(type="demo")), neck=dict(in_channels=[32, 64, 128, 192]))
""",
    "my_classification.py": """
model.update(backbone=dict(arch=dict(type="demo")))
model["head"].update(in_channels=192)
""",
}


def test_there_is_one_for_each_toolbox():
    assert set(CONFIGS) == set(DEMO)


@pytest.mark.parametrize("name", DEMO)
def test_config_of_the_page(tmp_path, name):
    text = CONFIGS[name]
    base = re.search(r'_base_ = "(.+)"', text)[1]
    text = text.replace(f'"{base}"', f'"{ROOT}/configs/{base}"').replace("data/sample", str(SAMPLE))
    if name == "my_classification.py":
        folders = tmp_path / "photos"
        for photo, label in photos_by_largest_object("training"):
            if label < 2:
                folder = folders / ("cat", "dog")[label]
                folder.mkdir(parents=True, exist_ok=True)
                (folder / photo).symlink_to(SAMPLE / "images/training" / photo)
        split = [sys.executable, "tools/split_classes.py", folders, "--train", "0.8"]
        subprocess.run(split, cwd=ROOT, check=True, capture_output=True)
        text = text.replace('"my_data"', repr(str(tmp_path)))
    path = tmp_path / name
    path.write_text(text + DEMO[name])
    cells, error = dry_run_apart(path, own_data=True)
    assert not error and len(cells) == len(STAGES)
