"""Makes the example videos of the Space and the pictures of the documentation.

    python docs/pictures/make.py --model modeling_stt/pretrained/stt_rendered

Needs the extras `render`, `timeline` and `app`, and for the picture of the Space Chromium with its driver.
"""

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av
import numpy as np
from PIL import Image

from dataset_scripts.rendered_faces import FRAMES_PER_SECOND, render_film
from modeling_stt import pretrained

ROOT = Path(__file__).parents[2]
PICTURES, VIDEOS = ROOT / "docs" / "pictures", ROOT / "examples" / "videos"
SIDE, SECONDS = 224, 12
# Identity seed of each person, and the expressions in turn.
LEFT = (11, ("neutral", "happy", "surprise", "sad"))
RIGHT = (17, ("happy", "neutral", "angry", "neutral"))


def write_video(path: Path, frames: np.ndarray) -> None:
    """Write frames `(T, H, W, 3)` uint8 RGB as H.264, which every browser plays."""
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND, options={"crf": "26"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())


def make_videos() -> None:
    """Write the two example videos; the clip of one face is cut as the shipped weights want it."""
    margin = pretrained.face_crop()["margin"]
    VIDEOS.mkdir(exist_ok=True)
    write_video(VIDEOS / "two_people.mp4", render_film([LEFT, RIGHT], seconds=SECONDS, image_size=SIDE))
    write_video(VIDEOS / "one_face.mp4", render_film([LEFT], seconds=SECONDS / 2, image_size=SIDE, margin=margin))


def make_timeline_pictures(model: str) -> None:
    """Draw the chart and an annotated frame with the commands that the README shows."""
    video = VIDEOS / "two_people.mp4"
    command = [sys.executable, "-m", "modeling_stt.cli", "timeline", str(video), "--model", model]
    with tempfile.TemporaryDirectory() as folder:
        annotated = Path(folder) / "annotated.mp4"
        subprocess.run([*command, "--chart", str(PICTURES / "chart.png"), "--annotate", str(annotated)], check=True)
        with av.open(str(annotated)) as container:
            frames = list(container.decode(video=0))
    frames[3 * len(frames) // 20].to_image().save(PICTURES / "annotated.jpg", quality=88)


def make_space_picture(model: str) -> None:
    """Read the example video on the page and take its picture."""
    from selenium import webdriver
    from selenium.webdriver.common.by import By

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = os.environ | {"GRADIO_SERVER_PORT": str(port), "STT_MODEL": model}
    server = subprocess.Popen([sys.executable, str(ROOT / "examples" / "app.py")], env=variables)
    options = webdriver.ChromeOptions()
    for word in ("--headless", "--no-sandbox", "--disable-gpu", "--window-size=900,1180"):
        options.add_argument(word)
    browser = webdriver.Chrome(options=options)
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.2)
        browser.get(f"http://127.0.0.1:{port}")
        browser.implicitly_wait(120)
        browser.find_element(By.CSS_SELECTOR, "#examples button").click()
        browser.find_element(By.CSS_SELECTOR, "#video video")
        browser.find_element(By.CSS_SELECTOR, "#read").click()
        browser.find_element(By.CSS_SELECTOR, "#attention img")
        time.sleep(2)
        browser.save_screenshot(str(PICTURES / "space.png"))
    finally:
        browser.quit()
        server.terminate()
        server.wait()
    with Image.open(PICTURES / "space.png") as shot:
        shot.convert("P", palette=Image.Palette.ADAPTIVE, colors=128).save(PICTURES / "space.png", optimize=True)


def main() -> None:
    """Make everything, or only what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="modeling_stt/pretrained/stt_rendered", help="folder of a trained model")
    parser.add_argument("--only", choices=("videos", "timeline", "space"))
    arguments = parser.parse_args()
    if arguments.only in (None, "videos"):
        make_videos()
    if arguments.only in (None, "timeline"):
        make_timeline_pictures(arguments.model)
    if arguments.only in (None, "space"):
        make_space_picture(arguments.model)


if __name__ == "__main__":
    main()
