"""The chart as HTML: segments as buttons in their places, probabilities that fill the height, text that is escaped."""

import base64
import csv
import io
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from modeling_stt.timeline.rows import Row, columns
from modeling_stt.timeline.web_chart import WebChart

NAMES = ["happy", "<sad>"]


def row(track: int | None, start_s: float, happy: float | None, state: str = "face") -> Row:
    if happy is None:
        return Row("a&b.mp4", track, start_s, start_s + 2, state)
    scores = {"happy": happy, "<sad>": 1 - happy}
    label = max(scores, key=lambda name: scores[name])
    picture = np.full((8, 8, 3), 90, np.uint8)
    return Row(
        "a&b.mp4", track, start_s, start_s + 2, state, label=label, scores=scores, margin=0.5, thumbnail=picture
    )


ROWS = [row(1, 0, 0.9), row(1, 2, 0.9), row(1, 4, 0.1), row(1, 6, 0.1), row(2, 4, 0.8), row(2, 6, None, "lost")]


@pytest.fixture(scope="module")
def page() -> ElementTree.Element:
    text = str(WebChart(ROWS, NAMES, "#video video")).replace("<br>", "<br/>")
    closed = re.sub(r"(<img[^>]*)>", r"\1/>", text)
    return ElementTree.fromstring(f"<page>{closed}</page>")


def test_segments_are_named_buttons_in_their_places(page: ElementTree.Element) -> None:
    buttons = list(page.iter("button"))
    assert [each.get("aria-label") for each in buttons] == [
        "happy, 0.0 to 4.0 s",
        "<sad>, 4.0 to 8.0 s",
        "happy, 4.0 to 6.0 s",
        "lost, 6.0 to 8.0 s",
    ]
    places = [re.match(r"left:([\d.]+)%;width:([\d.]+)%", each.get("style", "")).groups() for each in buttons]
    assert [tuple(map(float, place)) for place in places] == [(0, 50), (50, 50), (50, 25), (75, 25)]
    assert "currentTime = 4.0;" in buttons[1].get("onclick")
    assert "#video video" in buttons[1].get("onclick")


def test_probabilities_fill_the_height_wherever_a_face_was_judged(page: ElementTree.Element) -> None:
    first, second = page.iter("svg")
    for svg, seconds in ((first, 8), (second, 2)):
        areas = [float(box.get("width")) * float(box.get("height")) for box in svg.iter("rect")]
        assert sum(areas) == pytest.approx(seconds, abs=1e-2)


def test_every_person_has_a_picture_and_a_summary(page: ElementTree.Element) -> None:
    assert [each.get("alt") for each in page.iter("img")] == ["person 1", "person 2"]
    assert ["".join(each.itertext()) for each in page.iter("li")] == [
        "person 1, 0.0 to 8.0 s: happy 50% (4.0 s), <sad> 50% (4.0 s)",
        "person 2, 4.0 to 8.0 s: happy 100% (2.0 s), not seen 2.0 s",
    ]


def test_the_table_downloads_every_row() -> None:
    text = WebChart(ROWS, NAMES).table()
    assert "<sad>" not in text and "&lt;sad&gt;" in text
    assert 'download="a&amp;b.csv"' in text
    data = base64.b64decode(re.search(r"base64,([^\"]+)", text)[1]).decode()
    lines = list(csv.DictReader(io.StringIO(data)))
    assert list(lines[0]) == list(columns(NAMES))
    assert [float(line["start_s"]) for line in lines] == [each.start_s for each in ROWS]


def test_a_video_without_faces_is_drawn_as_nobody() -> None:
    text = str(WebChart([row(None, 0, None, "no face")], NAMES))
    assert ">nobody<" in text.replace("<br>", "")
    assert "<svg" not in text
