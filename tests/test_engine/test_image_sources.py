"""What is predicted: folders, patterns, videos, cameras and addresses."""

import http.server
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

import eyetoy_mm  # noqa: F401 - first: supplies what mmcv-lite lacks

pytest.importorskip("mmengine")
from eyetoy_mm.engine.image_sources import FrameReader, PictureWriter, count_frames, download, find_sources
from eyetoy_mm.errors import UserError

PHOTO = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)


class Reads:
    """Stands where a model's preprocessing does: reads a file in colour."""

    def read(self, path):
        return cv2.imread(str(path))


@pytest.fixture
def folder(tmp_path) -> Path:
    for name in ("a.jpg", "a.png", "deep/b.PNG", ".hidden/c.png", "results/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / name), PHOTO)
    (tmp_path / "notes.txt").touch()
    write_video(tmp_path / "clip.avi", 4)
    return tmp_path


def write_video(path: Path, frames: int) -> None:
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (16, 12))
    for index in range(frames):
        video.write(np.full((12, 16, 3), 50 * index % 256, np.uint8))
    video.release()


def test_a_folder_is_all_images_and_videos_below_it_but_for_the_results(folder):
    found = find_sources([folder], without=folder / "results")
    assert [(str(one.target), one.kind) for one in found] == [
        ("a", "image"), ("a_", "image"), ("clip", "video"), ("deep/b", "image"),
    ]  # fmt: skip


def test_links_lead_to_images_or_are_told(folder, tmp_path_factory):
    """A folder of another disk is looked into once; what leads nowhere is among the images that cannot be read."""
    disk = tmp_path_factory.mktemp("disk")
    cv2.imwrite(str(disk / "e.png"), PHOTO)
    for name, target in (("disk", disk), ("loop", folder), ("gone.png", "none.png"), ("gone", "none")):
        (folder / "deep" / name).symlink_to(target)
    found = [str(one.target) for one in find_sources([folder / "deep"])]
    assert found == ["b", "gone", "disk/e"]
    assert [str(one.target) for one in find_sources([f"{folder}/deep/*.png"])] == ["gone"]


def test_a_pattern_takes_results_only_where_it_leads_to_them(folder):
    def found(pattern):
        return [str(one.target) for one in find_sources([f"{folder}/{pattern}"], without=folder / "results")]

    assert found("**/*.png") == ["a"] and found("r*/../*.png") == ["a"]
    assert found("results/*.png") == found("deep/../results/*") == ["d"]
    with pytest.raises(UserError, match="no image or video matches"):
        found("res*/*.png")


def test_patterns_cameras_addresses_and_what_is_not_there(folder):
    found = find_sources([f"{folder}/**/*.png", "0", "https://host/x/photo.jpg?size=2", "s3://bucket/p.jpg", "no.jpg"])
    assert [one.kind for one in found] == ["image", "image", "camera", "web", "image", "image"]
    assert [str(one.target) for one in found] == ["a", "d", "camera0", "photo", "p", "no"]
    with pytest.raises(UserError, match=r"no image or video matches .*\.gif"):
        find_sources([f"{folder}/*.gif"])
    (folder / "empty").mkdir()
    with pytest.raises(UserError, match="there is no image or video in .*empty: none of its files ends in"):
        find_sources([folder / "empty"])


def frames(folder, *inputs, most=None):
    reader = FrameReader(Reads(), folder, most)
    for source in find_sources(inputs):
        for frame in reader.of(source):
            yield frame, frame.load()


def test_frames_of_a_video_and_their_pictures(folder):
    clip = folder / "clip.avi"
    seen = list(frames(folder, clip))
    assert [frame.name for frame, _ in seen] == [f"{clip}, frame {index}" for index in range(4)]
    assert [abs(int(image.mean()) - 50 * index) < 8 for index, (_, image) in enumerate(seen)] == [True] * 4
    assert count_frames(find_sources([clip])) == 4 and count_frames(find_sources([clip]), 3) == 3
    assert len(list(frames(folder, clip, most=3))) == 3
    writer = PictureWriter(folder / "painted")
    places = {writer.write(frame, image) for frame, image in seen}
    writer.close()
    assert places == {folder / "painted/clip.mp4"} and count_frames(find_sources(places)) == 4
    singly = PictureWriter(folder / "painted", as_images=True)
    assert singly.write(*seen[2]) == folder / "painted/clip/000002.png"


def test_videos_and_cameras_that_are_none(folder):
    (broken := folder / "broken.mp4").write_text("no video")
    with pytest.raises(UserError, match="broken.mp4 is not a video that can be read"):
        list(frames(folder, broken))
    with pytest.raises(UserError, match="there is no camera 97 that can be opened: look for /dev/video"):
        list(frames(folder, "97"))
    assert count_frames(find_sources(["97"])) is None


def test_a_video_that_is_cut_short_is_told_once_what_there_is_is_read(folder):
    clip = folder / "clip.mkv"
    write_video(clip, 30)
    if not clip.exists() or count_frames(find_sources([clip])) != 30:
        pytest.skip("this OpenCV writes no such videos")
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    found = frames(folder, clip)
    assert next(found)[0].name == f"{clip}, frame 0"
    with pytest.raises(UserError, match=r"clip.mkv ends after \d+ of the 30 frames that its head says"):
        list(found)
    assert len(list(frames(folder, clip, most=3))) == 3


class Site(http.server.BaseHTTPRequestHandler):
    """An image, a page, and a file that is cut short."""

    def do_GET(self):
        body = cv2.imencode(".png", PHOTO)[1].tobytes()
        kind = "text/html" if "page" in self.path else "image/png"
        if "none" in self.path:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body) + 100 * ("short" in self.path)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def site():
    server = http.server.HTTPServer(("127.0.0.1", 0), Site)
    thread = threading.Thread(target=server.serve_forever, kwargs=dict(poll_interval=0.02))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join(10)
    server.server_close()


def test_an_image_at_an_address(site, tmp_path):
    ((frame, image),) = frames(tmp_path, f"{site}/a%20photo.png")
    assert (image == PHOTO).all() and str(frame.target) == "a photo"
    assert [path.name for path in tmp_path.iterdir()] == []  # nothing is left


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("none", "cannot be downloaded: the server says 404 Not Found"),
        ("page", "is a web page, not an image"),
        ("short", "was cut short"),
    ],
)
def test_addresses_of_nothing(site, tmp_path, path, message):
    with pytest.raises(UserError, match=message):
        list(frames(tmp_path, f"{site}/{path}"))
    assert not list(tmp_path.iterdir())  # not even what came of it


def test_downloads_have_a_limit(site, tmp_path, monkeypatch):
    monkeypatch.setenv("EYETOY_MAX_DOWNLOAD", "100")
    with pytest.raises(UserError, match=r"has more than 100 bytes, and was not downloaded; EYETOY_MAX_DOWNLOAD=BYTES"):
        download(f"{site}/photo.png", tmp_path)
    with pytest.raises(UserError, match="cannot be downloaded: .*[Rr]efused"):
        monkeypatch.delenv("EYETOY_MAX_DOWNLOAD")
        download("http://127.0.0.1:9/photo.png", tmp_path)
