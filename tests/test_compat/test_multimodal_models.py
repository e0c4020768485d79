"""mmpretrain and mmdet beside a transformers that mmpretrain's multimodal models do not know."""

import subprocess
import sys
import textwrap

import pytest

pytest.importorskip("mmpretrain")

IMPORT = """
    import eyetoy_mm
    import mmpretrain.models
    from mmpretrain.registry import MODELS
    MODELS.build(dict(type="ResNet", depth=18))
    try:
        MODELS.build(dict(type="BlipCaption"))
    except Exception as error:
        print(error)
"""


def test_models_import_beside_a_newer_transformers(tmp_path):
    """What transformers 5 has of `modeling_utils`, and what it lacks; installed as far as its metadata say."""
    (tmp_path / "transformers").mkdir()
    (tmp_path / "transformers/__init__.py").touch()
    (tmp_path / "transformers/modeling_utils.py").write_text("class PreTrainedModel: pass\n")
    (tmp_path / "transformers-5.17.0.dist-info").mkdir()
    (tmp_path / "transformers-5.17.0.dist-info/METADATA").write_text(
        "Metadata-Version: 2.1\nName: transformers\nVersion: 5.17.0\n"
    )
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n" + textwrap.dedent(IMPORT)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert "requires extra multi-modal dependencies" in run.stdout
    assert run.stderr.count("transformers 5.17.0 has no apply_chunking_to_forward") == 1
