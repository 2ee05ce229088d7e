"""The Space as visitors see it: the program on a port, a real browser, and videos with faces that are found."""

import csv
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from dataset_scripts.rendered_faces import render_film
from helpers.models import NAMES, make_model, make_processor
from helpers.programs import ROOT
from helpers.videos import write_sound, write_video
from modeling_stt import pretrained
from modeling_stt.timeline import FaceCrop, Timeline, columns, explain_window, segments
from modeling_stt.timeline.segments import people, person

sys.path.insert(0, str(ROOT / "examples"))

# Requirements of the Space and its tests: gradio and selenium come with the extra "dev", the others from Debian.
MISSING = [name for name in ("gradio", "onnxruntime", "selenium") if importlib.util.find_spec(name) is None]
MISSING += [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
if MISSING:
    pytest.skip(
        f"the Space is not tested without {', '.join(MISSING)}: pip install 'modeling-stt[dev]', apt-get install "
        "chromium chromium-driver",
        allow_module_level=True,
    )
else:
    from selenium import webdriver
    from selenium.common.exceptions import StaleElementReferenceException
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.remote.webdriver import WebDriver
    from selenium.webdriver.remote.webelement import WebElement

    import app

WAIT_S = 120.0
SLOW_S = 55  # length of a video whose reading takes longer than a minute
CHROMIUM = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --use-fake-ui-for-media-stream --use-fake-device-for-media-stream "
    "--window-size=1280,900"
)


def faces(*labels: str, seconds: float = 3, size: int = 160) -> list[np.ndarray]:
    """Frames with a rendered face for each label, side by side, `(H, W, 3)` each."""
    people = [(8 + 2 * n, ["neutral", label]) for n, label in enumerate(labels)]
    return list(render_film(people, seconds=seconds, image_size=size))


def blank(num_frames: int, height: int = 64, width: int = 64) -> list[np.ndarray]:
    return [np.full((height, width, 3), 90, np.uint8)] * num_frames


def until(condition: Callable[[], Any], what: str) -> Any:
    """Wait for a condition and return its value. Elements that are redrawn meanwhile are searched again."""
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        with suppress(StaleElementReferenceException):
            if value := condition():
                return value
        time.sleep(0.1)
    raise AssertionError(f"waited {WAIT_S:.0f} s for {what}")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model with random weights, so large that its answers differ."""
    folder = tmp_path_factory.mktemp("model")
    crop = {"margin": 0.1, "align": True, "size": 32, "min_side": 32}
    make_model(initializer_range=0.3).save_pretrained(folder)
    make_processor(face_crop=crop).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of good and bad uploads."""
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "one.mp4", faces("happy"))
    write_video(folder / "two.mp4", faces("surprise", "sad", seconds=4))
    write_video(folder / "nobody.mp4", blank(50))
    write_video(folder / "long.mp4", blank(75), fps=1)
    write_video(folder / "wide.mp4", blank(2, width=2000))
    (folder / "text.mp4").write_text("not a video")
    with (folder / "heavy.mp4").open("wb") as file:
        file.truncate(int(app.LIMITS.megabytes + 1) * 10**6)
    whole = (folder / "two.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    write_sound(folder / "sound.mp4")
    write_video(folder / "slow.mp4", blank(25 * int(SLOW_S), 1080, 1920))
    return folder


@contextmanager
def serve(folder: Path, program: Path, **variables: str) -> Iterator[str]:
    """Run the app until the block ends; gives its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"GRADIO_SERVER_PORT": str(port), "GRADIO_TEMP_DIR": str(folder)} | variables
    environment |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen([sys.executable, program], stdout=log, stderr=subprocess.STDOUT, env=environment)

    def answers() -> bool:
        assert process.poll() is None, (folder / "log.txt").read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        until(answers, "the page to be served")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()
    log_text = (folder / "log.txt").read_text()
    assert "Traceback" not in log_text, log_text


@pytest.fixture(scope="module")
def address(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serve(tmp_path_factory.mktemp("server"), ROOT / "examples" / "app.py", STT_MODEL=str(model)) as url:
        yield url


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebDriver]:
    """Chromium with a fresh profile and a camera that sees a rendered face."""
    folder = tmp_path_factory.mktemp("browser")
    with (folder / "camera.y4m").open("wb") as camera:
        camera.write(b"YUV4MPEG2 W160 H160 F25:1 Ip A1:1 C420jpeg\n")
        for image in faces("happy", seconds=2):
            planes = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p").to_ndarray()
            camera.write(b"FRAME\n" + planes.tobytes())
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for argument in (*CHROMIUM.split(), f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(argument)
    options.add_argument(f"--use-file-for-fake-video-capture={folder / 'camera.y4m'}")
    options.add_experimental_option("prefs", {"download.default_directory": str(folder / "downloads")})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    driver.downloads = folder / "downloads"
    yield driver
    driver.quit()


class Visitor:
    """Somebody with a tab of their own."""

    def __init__(self, browser: WebDriver, address: str) -> None:
        self.browser = browser
        self.tab = browser.current_window_handle
        browser.get(address)
        until(lambda: self.all("#read"), "the page to be drawn")

    def all(self, selector: str) -> list[WebElement]:
        self.browser.switch_to.window(self.tab)
        return [each for each in self.browser.find_elements(By.CSS_SELECTOR, selector) if each.is_displayed()]

    def one(self, selector: str) -> WebElement:
        return until(lambda: self.all(selector), selector)[0]

    def give(self, video: Path) -> None:
        """Upload a video, in the place of one that is there."""
        for button in self.all("#video button[aria-label=Clear]"):
            button.click()
        until(lambda: not self.all("#video video"), "an empty place for a video")
        self.browser.find_element(By.CSS_SELECTOR, "#video input[type=file]").send_keys(str(video))
        self.one("#video button[aria-label=Clear]")

    def start(self) -> None:
        self.browser.execute_script("document.querySelector('#message [role=status]').textContent = ''")
        self.one("#read").click()

    def read(self) -> str:
        """Have the video read; gives the message."""
        self.start()
        return self.message()

    def message(self) -> str:
        return until(
            lambda: [
                each.text
                for each in self.all("#message .note, #message .problem")
                if each.text and not each.text.startswith("Reading")
            ],
            "a message",
        )[0]

    def segments(self) -> list[str]:
        return [each.accessible_name for each in self.all("#chart .bar button")]

    def caption(self) -> str:
        """Caption of the attention of the chosen window."""
        return until(lambda: [each.text for each in self.all("#attention p")], "a caption")[0]

    def download(self) -> list[dict[str, str]]:
        """The table's rows as downloaded."""
        link = self.one("#table a")
        file = self.browser.downloads / link.get_attribute("download")
        file.unlink(missing_ok=True)
        link.click()
        until(file.is_file, "the table")
        with file.open(newline="") as lines:
            return list(csv.DictReader(lines))

    def scrolls_sideways(self) -> bool:
        self.browser.switch_to.window(self.tab)
        page = self.browser.find_element(By.TAG_NAME, "html")
        return page.get_property("scrollWidth") > page.get_property("clientWidth")


@pytest.fixture
def visitor(browser: WebDriver, address: str) -> Iterator[Visitor]:
    """One whose browser complained of nothing, and asked nobody but the app."""
    browser.get("about:blank")
    browser.get_log("browser")  # what the last page said when it was left
    visitor = Visitor(browser, address)
    yield visitor
    complaints = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    # Gradio tells the console when it gives up a request of its own, as for a video that is cleared while it loads.
    assert [text for text in complaints if "AbortError" not in text] == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [each["params"]["request"]["url"] for each in events if each["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if url.startswith("http") and not url.startswith(address)] == []


def test_a_video_becomes_chart_summary_table_and_attention(visitor: Visitor, videos: Path, model: Path) -> None:
    visitor.give(videos / "two.mp4")
    assert visitor.read().startswith("Done: 2 faces")
    expected = list(Timeline(model)(videos / "two.mp4", "two.mp4"))
    parts = segments(expected)
    assert visitor.segments() == [f"{s.name}, {s.start_s:.1f} to {s.end_s:.1f} s" for s in parts]
    assert len(visitor.all("#table tbody tr")) == len(parts)
    assert [each.text.split(",")[0] for each in visitor.all("#chart li")] == [
        person(track) for track in people(expected)
    ]
    assert len(visitor.all("#chart img")) == len(visitor.all("#chart svg")) == 2
    assert len(expected) == 6
    got = visitor.download()
    assert list(got[0]) == list(columns(NAMES))
    for row, record in zip(expected, got, strict=True):
        assert (record["video"], record["label"], record["track"]) == ("two.mp4", row.label, str(row.track))
        assert (float(record["start_s"]), float(record["end_s"])) == (row.start_s, row.end_s)
        assert [float(record[f"score_{name}"]) for name in NAMES] == pytest.approx(list(row.scores.values()), abs=1e-5)


def test_a_click_on_the_chart_shows_the_moment(visitor: Visitor, videos: Path) -> None:
    visitor.give(videos / "two.mp4")
    visitor.read()

    def shown_s() -> float:
        return visitor.browser.execute_script("return document.querySelector('#video video').currentTime")

    *_, last = visitor.all("#chart .bar button")
    last.click()
    start_s = float(last.accessible_name.split(", ")[1].split(" to ")[0])
    until(lambda: shown_s() == pytest.approx(start_s, abs=0.05), "the beginning of the segment")
    visitor.all("#chart svg")[0].click()  # its middle
    until(lambda: shown_s() == pytest.approx(2, abs=0.1), "the middle of the video")


def test_progress_is_reported_while_a_video_is_read(visitor: Visitor, videos: Path) -> None:
    visitor.give(videos / "two.mp4")
    visitor.start()
    until(lambda: "Reading: second" in visitor.one("#message").text, "progress")
    assert visitor.message().startswith("Done")


def test_a_visitor_who_leaves_frees_the_place(visitor: Visitor, address: str, videos: Path) -> None:
    browser = visitor.browser
    browser.switch_to.new_window("tab")
    other = Visitor(browser, address)
    other.give(videos / "slow.mp4")
    other.start()
    until(lambda: "Reading: second" in other.one("#message").text, "the reading")
    browser.close()
    browser.switch_to.window(visitor.tab)
    began = time.monotonic()
    visitor.give(videos / "one.mp4")
    assert visitor.read().startswith("Done: one face")
    assert time.monotonic() - began < SLOW_S / 2, "the slow video of the visitor who left was read on"


def test_the_slider_goes_through_the_windows_by_keyboard(visitor: Visitor, videos: Path) -> None:
    visitor.give(videos / "two.mp4")
    visitor.read()
    seen = [(until(visitor.caption, "a caption"), visitor.one("#attention img").get_attribute("src"))]
    slider = visitor.one("#window input[type=range]")
    for _ in range(5):
        slider.send_keys(Keys.ARROW_RIGHT)
        until(lambda: visitor.caption() != seen[-1][0], "the next window")
        seen.append((visitor.caption(), visitor.one("#attention img").get_attribute("src")))
    names = sorted({caption.split(",")[0] for caption, _ in seen})
    assert [caption.split(" s: ")[0] for caption, _ in seen] == [
        f"{name}, {start}.0–{start + 2}.0" for name in names for start in (0, 1, 2)
    ]
    assert len(names) == 2
    assert len({picture for _, picture in seen}) == 6


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("text.mp4", "text.mp4 cannot be read as a video"),
        ("sound.mp4", "sound.mp4 has no video stream (found: audio)"),
        ("cut.mp4", "cut.mp4 cannot be read as a video"),
        ("long.mp4", "long.mp4 has 74 seconds. The limit is 60 seconds"),
        ("wide.mp4", "wide.mp4 has 2000 × 64 pixels. The limit is 1920"),
    ],
)
def test_a_bad_video_is_answered_on_the_page(visitor: Visitor, videos: Path, name: str, words: str) -> None:
    visitor.give(videos / name)
    assert visitor.read().startswith(words)
    assert not visitor.all("#results")


def test_results_of_the_last_video_do_not_stay_beside_an_error(visitor: Visitor, videos: Path) -> None:
    visitor.give(videos / "one.mp4")
    visitor.read()
    assert visitor.all("#results")
    visitor.give(videos / "long.mp4")
    visitor.read()
    assert not visitor.all("#results")


def test_without_a_video_the_page_asks_for_one(visitor: Visitor) -> None:
    assert visitor.read().startswith("Give a video first")


def test_a_video_without_faces_has_rows_but_no_attention(visitor: Visitor, videos: Path) -> None:
    visitor.give(videos / "nobody.mp4")
    assert visitor.read().startswith("No face was found")
    assert visitor.segments() == ["no face, 0.0 to 2.0 s"]
    assert not visitor.all("#window")


def test_a_file_that_is_too_large_is_not_taken(browser: WebDriver, address: str, videos: Path) -> None:
    visitor = Visitor(browser, address)
    browser.find_element(By.CSS_SELECTOR, "#video input[type=file]").send_keys(str(videos / "heavy.mp4"))
    assert "Mb" in visitor.one("[data-testid=toast-body]").text
    browser.get_log("browser")  # Gradio tells the console as well


def test_two_visitors_at_once_get_their_own(visitor: Visitor, address: str, videos: Path) -> None:
    browser = visitor.browser
    browser.switch_to.new_window("tab")
    try:
        other = Visitor(browser, address)
        visitor.give(videos / "two.mp4")
        other.give(videos / "one.mp4")
        visitor.start()
        other.start()
        assert other.message().startswith("Done: one face in 3.0 seconds")
        assert visitor.message().startswith("Done: 2 faces")
        assert {record["video"] for record in visitor.download()} == {"two.mp4"}
        assert {record["video"] for record in other.download()} == {"one.mp4"}
        visitor.one("#window input[type=range]").send_keys(Keys.END)
        until(lambda: ", 2.0–4.0 s" in visitor.caption(), "the last window of the first visitor")
        assert ", 0.0–2.0 s" in other.caption()
        browser.switch_to.window(other.tab)
        browser.close()
    finally:
        browser.switch_to.window(visitor.tab)


def test_all_can_be_done_without_a_mouse(visitor: Visitor) -> None:
    """From an example to the download, by tabulator, enter and arrows; whatever takes the focus has a name."""
    browser = visitor.browser

    def tab_to(name: str) -> WebElement:
        for _ in range(40):
            browser.switch_to.active_element.send_keys(Keys.TAB)
            focused = browser.switch_to.active_element
            assert focused.accessible_name or focused.tag_name in ("body", "video"), focused.get_attribute("outerHTML")
            if focused.accessible_name.startswith(name):
                return focused
        raise AssertionError(f"{name} cannot be reached by the tabulator")

    assert tab_to("Drop a video file here").aria_role == "button"
    tab_to("The video is already cropped")
    tab_to("One rendered face, cropped").send_keys(Keys.ENTER)
    until(lambda: visitor.all("#video video"), "the example")
    tab_to("Read the expressions").send_keys(Keys.ENTER)
    assert visitor.message().startswith("Done: one face")
    tab_to("Download all windows").send_keys(Keys.ENTER)
    until((browser.downloads / "one_face.csv").is_file, "the table")
    tab_to("range slider for Window").send_keys(Keys.ARROW_RIGHT)
    until(lambda: ", 1.0–3.0 s" in visitor.caption(), "the second window")


def test_a_phone_shows_everything_without_scrolling_sideways(visitor: Visitor, videos: Path) -> None:
    phone = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    visitor.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    try:
        assert not visitor.scrolls_sideways()
        visitor.give(videos / "two.mp4")
        visitor.read()
        visitor.one("#attention img")
        assert not visitor.scrolls_sideways()
        chart = visitor.one("#chart .people")
        assert chart.rect["width"] <= 390
        assert all(each.rect["width"] > 200 for each in visitor.all("#chart .bar, #chart svg"))
    finally:
        visitor.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_recording_is_read(visitor: Visitor) -> None:
    """A browser's recording does not state its duration."""
    visitor.one("button[aria-label='Capture from camera']").click()
    until(lambda: [b for b in visitor.all("#video button") if "Access Webcam" in b.text], "the camera")[0].click()
    until(lambda: [b for b in visitor.all("#video button") if b.text == "Record"], "the record button")[0].click()
    time.sleep(2)
    until(lambda: [b for b in visitor.all("#video button") if b.text == "Stop"], "the stop button")[0].click()
    visitor.one("#video button[aria-label=Clear]")
    assert visitor.read().startswith("Done: one face")


def test_no_history_of_videos_is_left_in_the_browser(visitor: Visitor) -> None:
    """Gradio keeps one of what visitors did unless told not to."""
    visitor.one("#examples button").click()
    until(lambda: visitor.all("#video video"), "the example")
    kept = visitor.browser.execute_script("return Object.keys(localStorage)")
    assert [key for key in kept if "history" in key] == []


def test_a_real_face_is_read(visitor: Visitor) -> None:
    file = Path(os.environ.get("STT_FACE_VIDEOS", "nowhere")) / "single_face.mp4"
    if not file.is_file():
        pytest.skip("single_face.mp4 is absent: set STT_FACE_VIDEOS to the folder of the real face videos")
    visitor.give(file)
    assert visitor.read().startswith("Done: one face in 2.4 seconds")


def test_uploads_are_deleted_after_a_while(
    model: Path, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the time set to a second; nothing else differs from the program."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    monkeypatch.setattr(app, "KEEP_S", 1)
    blocks = app.Page(str(model)).blocks([])
    _, url, _ = blocks.launch(prevent_thread_lock=True, quiet=True)
    try:
        mark = "frontier"
        body = f'--{mark}\r\nContent-Disposition: form-data; name="files"; filename="one.mp4"\r\n\r\n'.encode()
        body += (videos / "one.mp4").read_bytes() + f"\r\n--{mark}--\r\n".encode()
        request = urllib.request.Request(f"{url}gradio_api/upload", body)
        request.add_header("Content-Type", f"multipart/form-data; boundary={mark}")
        with urllib.request.urlopen(request) as answer:
            [path] = json.load(answer)
        assert tmp_path in Path(path).parents
        until(lambda: not Path(path).exists(), "the upload to be deleted")
    finally:
        blocks.close(verbose=False)


def test_the_kept_frames_of_a_window_give_its_answer(model: Path, videos: Path) -> None:
    """As many frames as the model takes, without the backbone's maps."""
    timeline = app.Page(str(model)).timeline
    for row, window in timeline.windows(videos / "two.mp4"):
        kept = app.slim(window, timeline)
        assert (len(window.sightings), len(kept.sightings)) == (51 if row.end_s < 4 else 50, 4)
        assert not any(sighting.memo is not None for sighting in kept.sightings)
        assert explain_window(kept, timeline).scores == pytest.approx(row.scores, abs=1e-5)


@pytest.mark.parametrize("shape", [(120, 120), (90, 160), (160, 90)])
def test_a_cropped_video_is_not_cropped_again(shape: tuple[int, int]) -> None:
    """The crop is the frame, whose shorter side is filled with black."""
    frame = np.full((*shape, 3), 200, np.uint8)
    [[face]] = app.WholeFrame(margin=0.1).detect([frame])
    crop = FaceCrop(margin=0.1, size=max(shape))(frame, face)
    assert (crop > 150).sum() == pytest.approx(frame.size, rel=0.02)


def test_the_model_is_taken_from_command_environment_or_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(app, "__file__", str(tmp_path / "app.py"))
    monkeypatch.setattr(sys, "argv", ["app.py"])
    monkeypatch.delenv("STT_MODEL", raising=False)
    assert app.chosen_model() == str(pretrained.folder())
    (tmp_path / "space.json").write_text('{"model": "user/stt-dfew"}')
    assert app.chosen_model() == "user/stt-dfew"
    monkeypatch.setenv("STT_MODEL", "user/other")
    assert app.chosen_model() == "user/other"
    monkeypatch.setattr(sys, "argv", ["app.py", "--model", "runs/mine"])
    assert app.chosen_model() == "runs/mine"
