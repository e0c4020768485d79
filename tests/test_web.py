"""The page that runs exported models: what of it needs no browser, in node, against OpenCV and the toolboxes' rules."""

import functools
import http.server
import json
import os
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest

import eyetoy_mm.backbones  # noqa: F401 - supplies what mmcv-lite lacks
from eyetoy_mm.export.pasting import paste

cv2 = pytest.importorskip("cv2")
if shutil.which("node") is None:
    pytest.skip("node is not installed", allow_module_level=True)

WEB = Path(__file__).parents[1] / "web"
RUN = """
import {{ readFileSync }} from "node:fs";
import {{ describe }} from "{web}/model_file.js";
import {{ planes, prepare }} from "{web}/preparing.js";
import {{ best, color, counts, found, paintLabels, paintMask, shares }} from "{web}/results.js";
const given = JSON.parse(readFileSync(0));
const told = (action) => {{ try {{ return action(); }} catch (error) {{ return error.message; }} }};
console.log(JSON.stringify({code}, (key, x) => (ArrayBuffer.isView(x) ? Array.from(x) : x)));
"""


def in_node(code: str, **given: object) -> dict:
    program = RUN.format(web=WEB.as_uri(), code=code)
    done = subprocess.run(
        ["node", "--input-type=module", "-e", program],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def rgba(image: np.ndarray) -> dict:
    opaque = np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])
    return dict(data=opaque.ravel().tolist(), width=image.shape[1], height=image.shape[0])


def test_images_are_prepared_as_the_toolboxes_do():
    """Steps of test pipelines, each by its own class, for images that grow and that shrink, tall, wide and dark."""
    pytest.importorskip("mmpretrain")
    pytest.importorskip("mmdet")
    from mmcv.transforms import CenterCrop, Resize
    from mmdet.datasets.transforms import AutoContrast
    from mmpretrain.datasets.transforms import ResizeEdge

    ways = [dict(backend=b, interpolation=i) for b in ("cv2", "pillow") for i in ("bilinear", "bicubic")]
    pipelines = [
        [(Resize, dict(scale=(21, 5), keep_ratio=True))],
        [(Resize, dict(scale=(2048, 16), keep_ratio=True, interpolation="bicubic"))],
        [(Resize, dict(scale_factor=1.75, keep_ratio=True))],
        [(Resize, dict(scale_factor=(0.5, 1.3)))],
        [(AutoContrast, dict(prob=1.0)), (Resize, dict(scale_factor=1.75, keep_ratio=True))],
        [(ResizeEdge, dict(scale=7, edge="short")), (CenterCrop, dict(crop_size=(5, 4)))],
        [(ResizeEdge, dict(scale=9, edge="long")), (CenterCrop, dict(crop_size=6))],
        *([(Resize, dict(scale=size, **way))] for way in ways for size in ((6, 40), (31, 44), (5, 4))),
    ]
    generator = np.random.default_rng(0)
    images = [
        generator.integers(3, high, (*size, 3), dtype=np.uint8) for high, size in ((256, (9, 14)), (91, (33, 16)))
    ]
    images[1][..., 1] = 17  # one colour has no contrast
    found = in_node(
        "given.photos.map((photo) => given.pipelines.map((before) => prepare(photo, {before})))",
        photos=[rgba(image) for image in images],
        pipelines=[[dict(type=step.__name__, **settings) for step, settings in steps] for steps in pipelines],
    )
    for image, prepared in zip(images, found, strict=True):
        for steps, one in zip(pipelines, prepared, strict=True):
            results = dict(img=image)
            for step, settings in steps:
                results = step(**settings)(results)
            actual = np.array(one["data"]).reshape(one["height"], one["width"], 4)[..., :3]
            assert actual.shape == results["img"].shape, (steps, image.shape)
            assert np.abs(actual - results["img"].astype(int)).max() <= 1, (steps, image.shape)


def test_where_an_image_lies_in_its_photo_and_what_is_refused():
    image = np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)
    square = [dict(type="ResizeEdge", scale=7, edge="short"), dict(type="CenterCrop", crop_size=[5, 4])]
    refused = {
        "the step Rotate before the model": dict(type="Rotate"),
        "area resizing by cv2": dict(type="Resize", scale=[7, 7], interpolation="area"),
        "the step CenterCrop with auto_pad": dict(type="CenterCrop", crop_size=4, auto_pad=True),
        "AutoContrast by chance": dict(type="AutoContrast"),
        "the step constructor": dict(type="constructor"),
    }
    found = in_node(
        """{
          square: prepare(given.photo, {before: given.square}),
          fixed: prepare(given.photo, {before: [], size: [18, 7]}),
          planes: planes(given.photo),
          refused: given.refused.map((step) => told(() => prepare(given.photo, {before: [step]}))),
        }""",
        photo=rgba(image),
        square=square,
        refused=list(refused.values()),
    )
    place = found["square"]["place"]
    assert place == pytest.approx(dict(left=2 * 14 / 10, top=2 * 9 / 7, x=14 / 10, y=9 / 7))
    assert (found["fixed"]["height"], found["fixed"]["width"]) == (18, 7)
    assert found["planes"] == image.transpose(2, 0, 1).ravel().tolist()
    assert all(text in message for text, message in zip(refused, found["refused"], strict=True)), found["refused"]


def test_what_a_file_says_of_itself(tmp_path):
    onnx = pytest.importorskip("onnx")
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [200])
    weight = onnx.numpy_helper.from_array(np.random.rand(200).astype("float32"), "w")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Add", ["x", "w"], ["y"])], "g", [value], [value], [weight])
    graph.output[0].name = "y"
    model = onnx.helper.make_model(graph, producer_name="p")
    plain = model.SerializeToString()
    meta = {"task": "semantic segmentation", "classes": '["a", "ü"]', "palette": "[[1, 2, 3]]", "size": "[4, 5]"}
    onnx.helper.set_model_props(model, {f"eyetoy.{key}": text for key, text in meta.items()})
    whole = model.SerializeToString()
    found = in_node(
        "given.files.map((file) => told(() => describe(Uint8Array.from(file))))",
        files=[list(content) for content in (whole, plain, whole[:-3], b"\xff\xff", b"no onnx file")],
    )
    about = dict(classes=["a", "ü"], palette=[[1, 2, 3]], before=[], size=[4, 5])
    assert found[0] == {"task": "semantic segmentation", **about}
    assert "was not made by `eyetoy export`" in found[1]
    assert found[2] == "the file is cut short" and all(isinstance(text, str) for text in found[3:])


def test_what_is_shown():
    found = in_node(
        """{
          shares: shares(BigInt64Array.from([2n, 0n, 2n, 2n])),
          painted: paintLabels([1, 0], {palette: [[1, 2, 3], [4, 5, 6]]}, 9),
          colors: [0, 1, 2].map((label) => color({}, label)),
          best: best({data: Float32Array.from([0.25, 0.5, 0.25, 9]), dims: [1, 3]}, 2),
          boxes: found({boxes: {data: Float32Array.from([0, 0, 2, 1, 1, 1, 3, 3])}, scores: {data: [0.5, 0.25]},
                        labels: {data: [7n, 8n]}}, {left: 10, top: 20, x: 2, y: 3}, 0.3),
          counts: counts([[7, 0.5], [8, 0.9], [7, 0.75]].map(([label, score]) => ({label, score}))),
        }"""
    )
    assert found["shares"] == [dict(label=2, share=0.75), dict(label=0, share=0.25)]
    assert found["painted"] == [4, 5, 6, 9, 1, 2, 3, 9]
    assert len({tuple(rgb) for rgb in found["colors"]}) == 3
    assert all(0 <= x <= 255 for rgb in found["colors"] for x in rgb)
    assert found["best"] == [dict(label=1, share=0.5), dict(label=0, share=0.25)]
    assert found["counts"] == [dict(label=7, count=2, score=0.75), dict(label=8, count=1, score=0.9)]
    assert found["boxes"] == [dict(label=7, score=0.5, box=[10, 20, 14, 23], index=0)]


def test_masks_are_spread_on_their_boxes_as_the_exported_program_does():
    generator = np.random.default_rng(2)
    boxes = [[3.2, 4.7, 20.1, 9.9], [-4.0, 10.5, 47.0, 34.0], [7.0, 7.0, 7.6, 30.0], [5.0, 6.0, 5.0, 9.0]]
    masks = generator.random((len(boxes), 6, 5))
    found = in_node(
        "given.boxes.map((box, i) => paintMask(given.masks[i], [6, 5], box, [1, 2, 3, 4], {width: 40, height: 31}))",
        boxes=boxes,
        masks=masks.reshape(len(boxes), -1).tolist(),
    )
    for mask, box, part in zip(masks, boxes, found, strict=True):
        actual, place = np.zeros((31, 40, 4)), part["place"]
        left, top = place["left"], place["top"]
        shape = (part["height"], part["width"], 4)
        actual[top : top + shape[0], left : left + shape[1]] = np.reshape(part["data"], shape)
        covered = paste(mask, np.array(box), 31, 40) >= 0.5 if box[0] < box[2] else np.zeros((31, 40), bool)
        assert covered.any() == (box[0] < box[2]) and (actual == covered[..., None] * np.array([1, 2, 3, 4])).all()


def test_everything_that_the_page_imports_and_names_is_there():
    page, html = (WEB / "page.js").read_text(), (WEB / "index.html").read_text()
    makefile = (WEB.parent / "Makefile").read_text()
    for name in ("model_file.js", "preparing.js", "results.js"):
        assert f'"./{name}"' in page and (WEB / name).is_file()
    assert "ort.wasm.min.mjs" in page and "ort.wasm.min.mjs" in makefile
    for name in ("model", "photo", "camera", "threshold", "status", "drop", "picture", "legend", "times"):
        assert (f'id="{name}"' in html and f'element("{name}")' in page) or f'"{name}"' in page


# --- In a browser -----------------------------------------------------------------------------------------------------


_CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")  # Chromium's own moving picture


@pytest.fixture(scope="module")
def browser():
    """Chromium: the one of CHROMIUM or of the path, or that of playwright."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install playwright"
    )
    names = ("chromium", "chromium-browser", "google-chrome")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    with playwright.sync_playwright() as started:
        if found is None and not Path(started.chromium.executable_path).exists():
            pytest.skip("there is no Chromium: set CHROMIUM to its path, or run `playwright install chromium`")
        opened = started.chromium.launch(executable_path=found, args=["--no-sandbox", *_CAMERA])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def page_folder(tmp_path_factory):
    """The page, as `make web` builds it."""
    folder = tmp_path_factory.mktemp("page")
    command = ["make", "web", f"WEB={folder}"]
    done = subprocess.run(command, cwd=WEB.parent, capture_output=True, text=True, timeout=300)
    if done.returncode != 0 and ("npm error network" in done.stderr or shutil.which("npm") is None):
        pytest.skip("the page cannot be built: npm or its registry is out of reach")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def address(page_folder):
    """A plain web server of the page."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Quiet, directory=str(page_folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs=dict(poll_interval=0.05))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join(10)


def model_file(outputs: dict[str, tuple], nodes: list, constants: dict[str, np.ndarray], meta: dict[str, object]):
    """A small model with what `eyetoy export` says of one: images in, made without this package."""
    onnx = pytest.importorskip("onnx")
    helper, types = onnx.helper, onnx.TensorProto
    images = helper.make_tensor_value_info("images", types.FLOAT, ["batch", 3, "height", "width"])
    values = [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in outputs.items()]
    weights = [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(
        [helper.make_node(*node[:3], **node[3]) for node in nodes], "g", [images], values, weights
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    texts = {key: text if isinstance(text, str) else json.dumps(text) for key, text in meta.items()}
    helper.set_model_props(model, {f"eyetoy.{key}": text for key, text in texts.items()})
    onnx.checker.check_model(model)
    return model.SerializeToString()


def opened(browser, address, model: bytes, photo: np.ndarray):
    """The page with a model and a photo, after the model has run; the photo is a PNG, so that pixels stay."""
    page = browser.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(address)
    page.set_input_files("#model", dict(name="m.onnx", mimeType="application/octet-stream", buffer=model))
    page.wait_for_function("document.getElementById('status').textContent.includes('Opened in')", timeout=120_000)
    content = cv2.imencode(".png", photo[..., ::-1])[1].tobytes()
    page.set_input_files("#photo", dict(name="p.png", mimeType="image/png", buffer=content))
    done = "document.getElementById('times').textContent || document.querySelector('.wrong')"
    page.wait_for_function(done, timeout=120_000)
    assert not wrong and not page.query_selector(".wrong"), (wrong, page.inner_text("#status"))
    return page


def painted(page, photo: np.ndarray) -> np.ndarray:
    code = """() => {
        const canvas = document.getElementById("picture");
        return Array.from(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data);
    }"""
    return np.array(page.evaluate(code)).reshape(*photo.shape[:2], 4)[..., :3]


PHOTO = np.random.default_rng(1).integers(0, 256, (3, 4, 3), dtype=np.uint8).repeat(20, 0).repeat(20, 1)


@pytest.mark.slow
def test_a_segmentor_in_the_browser(browser, address):
    """Its labels are the brightest of red, green and blue; all of them are seen in the colours and in the shares."""
    palette = [[250, 0, 10], [0, 250, 20], [0, 30, 250]]
    model = model_file(
        {"labels": (7, ["batch", "height", "width"])},
        [("ArgMax", ["images"], ["labels"], dict(axis=1, keepdims=0))],
        {},
        {"task": "semantic segmentation", "classes": ["red", "green", "blue"], "palette": palette, "before": []},
    )
    page = opened(browser, address, model, PHOTO)
    labels = PHOTO.argmax(2)
    expected = PHOTO + (np.array(palette)[labels] - PHOTO.astype(int)) * 150 / 255
    assert np.abs(painted(page, PHOTO) - expected).max() <= 2
    rows = [line.split("\t")[-2:] for line in page.inner_text("#legend").splitlines()]
    counts = np.bincount(labels.ravel(), minlength=3)
    names = np.array(["red", "green", "blue"])
    assert {(name.strip(), share) for name, share in rows} == {
        (name, f"{100 * count / labels.size:.1f} %") for name, count in zip(names, counts) if count
    }
    assert "80 x 60 pixels, 80 x 60 for the model: prepared in" in page.inner_text("#times")
    page.close()


@pytest.mark.slow
def test_boxes_in_the_browser(browser, address):
    """Of a photo that is halved for the model, back on the photo; boxes below the least score are left out."""
    boxes = np.array([[5, 5, 25, 20], [1, 1, 4, 4]], np.float32)
    constants = dict(b=boxes, s=np.array([0.9, 0.1], np.float32), c=np.array([1, 0]), zero=np.array(0, np.float32))
    model = model_file(
        {"boxes": (1, ["n", 4]), "scores": (1, ["n"]), "labels": (7, ["n"])},
        [
            ("ReduceMean", ["images"], ["mean"], dict(keepdims=0)),
            ("Mul", ["mean", "zero"], ["nothing"], {}),
            ("Add", ["b", "nothing"], ["boxes"], {}),
            ("Identity", ["s"], ["scores"], {}),
            ("Identity", ["c"], ["labels"], {}),
        ],
        constants,
        {
            "task": "object detection",
            "classes": ["cat", "dog"],
            "palette": [[1, 2, 3], [255, 0, 255]],
            "before": [dict(type="Resize", scale=[40, 30], keep_ratio=True)],
        },
    )
    grey = np.full_like(PHOTO, 90)
    page = opened(browser, address, model, grey)
    assert page.inner_text("#legend").split() == ["dog", "90.0", "%"]
    assert "80 x 60 pixels, 40 x 30 for the model" in page.inner_text("#times")
    pink = np.abs(painted(page, grey) - [255, 0, 255]).max(2) < 30
    rows, columns = pink[18:].nonzero()  # the name stands above
    assert abs(18 + rows.max() - 40) <= 1 and abs(columns.min() - 10) <= 1 and abs(columns.max() - 50) <= 1
    assert pink[25:35, 15:45].sum() == 0
    page.close()


@pytest.mark.slow
def test_files_that_the_page_cannot_use_are_told(browser, address):
    page = browser.new_page()
    page.goto(address)
    for name, content, message in (
        ("a.onnx", b"no onnx file", "this is not an ONNX file"),
        ("p.png", b"no photo", "could not be decoded"),
    ):
        field = "#model" if name.endswith("onnx") else "#photo"
        page.set_input_files(field, dict(name=name, mimeType="application/octet-stream", buffer=content))
        page.wait_for_function(f"document.querySelector('.wrong')?.textContent.includes({message!r})", timeout=60_000)
    page.close()


def classifier(name: str) -> bytes:
    return model_file(
        {"scores": (1, ["batch", 3])},
        [("ReduceMean", ["images", "axes"], ["scores"], dict(keepdims=0))],
        {"axes": np.array([2, 3])},
        {"task": "image classification", "classes": [name, "green", "blue"], "before": []},
    )


@pytest.mark.slow
def test_what_comes_while_the_page_is_busy_waits_for_its_turn(browser, address):
    """A photo while the model beside the page is fetched, and another model while the camera runs: they were lost."""
    content = cv2.imencode(".png", PHOTO)[1].tobytes()
    page = browser.new_page()
    asked = []
    page.route("**/model.onnx", lambda route: asked.append(route))
    page.goto(address)
    page.set_input_files("#photo", dict(name="p.png", mimeType="image/png", buffer=b"no photo"))
    page.set_input_files("#photo", dict(name="p.png", mimeType="image/png", buffer=content))
    page.wait_for_timeout(200)
    asked[0].fulfill(body=classifier("one"))
    page.wait_for_function("document.querySelector('#legend').textContent.includes('one')", timeout=60_000)
    assert "model.onnx: image classification" in page.inner_text("#status")
    assert page.locator(".wrong").count() == 0  # what was wrong before is not said any more
    page.click("#camera")
    page.wait_for_function("document.querySelector('#times').textContent.includes('640 x 480')", timeout=60_000)
    page.set_input_files("#model", dict(name="b.onnx", mimeType="application/octet-stream", buffer=classifier("two")))
    page.wait_for_function("document.querySelector('#legend').textContent.includes('two')", timeout=60_000)
    page.click("#camera")
    page.wait_for_function("document.querySelector('#camera').textContent === 'Camera'", timeout=60_000)
    page.close()
