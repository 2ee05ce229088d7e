"""Attention maps: they are those of the model's own attentions, add up, and follow what is moved."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.utils import logging

from helpers.face_videos import (
    NAMES,
    HalvesDetector,
    face_clip,
    make_model,
    make_processor,
    make_timeline,
    save_model,
    scene,
    timed,
    write_video,
)
from modeling_stt import STTForVideoClassification, cli
from modeling_stt.configuration_stt import ATTENTION_ORDERS
from modeling_stt.timeline.attention import CAPTION, attention_rollout, draw_explanation, explain, explain_clip
from modeling_stt.timeline.attention import explain_window as explain_one_window

T, H, W = 4, 4, 4  # frames of the tests' model and its map
P = H * W


def eager(**changes):
    return make_model(attn_implementation="eager", **changes)


def reader(**changes):
    return make_timeline(model=eager(**changes))


def clip(seed=0):
    return torch.rand(1, T, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def block_matrices(outputs, order, depth):
    """The attentions of a block as full matrices over all 1 + T·P tokens, in the order in which they act."""
    index = 1 + torch.arange(T * P).view(T, P)
    for kind in order.split("_"):
        if kind == "only":
            continue
        if kind == "joint":
            yield outputs.joint_attentions[depth][0].mean(dim=0)
            continue
        weights = outputs.spatial_attentions if kind == "space" else outputs.temporal_attentions
        groups = index if kind == "space" else index.T
        matrix = torch.zeros(1 + T * P, 1 + T * P)
        for group, mean in zip(groups, weights[depth][0].mean(dim=1), strict=True):
            if len(mean) == len(group):
                matrix[0, 0] = 1  # the class token takes no part
                matrix[group[:, None], group[None]] = mean
            else:
                matrix[0, 0] += mean[0, 0] / len(groups)
                matrix[0, group] = mean[0, 1:] / len(groups)
                matrix[group, 0] = mean[1:, 0]
                matrix[group[:, None], group[None]] = mean[1:, 1:]
        yield matrix


@pytest.mark.parametrize("order", ATTENTION_ORDERS)
def test_the_rollout_is_the_product_of_all_blocks_attentions(order):
    """Against the whole matrices of Abnar and Zuidema, multiplied, of which only the class token's row is wanted."""
    model = eager(attention_order=order, num_hidden_layers=3)
    with torch.inference_mode():
        outputs = model(clip(), output_attentions=True)
    product = torch.eye(1 + T * P)
    for depth in range(3):
        for matrix in block_matrices(outputs, order, depth):
            assert matrix.sum(dim=1).numpy() == pytest.approx(1, abs=1e-5)
            product = (matrix + torch.eye(1 + T * P)) / 2 @ product
    weights = attention_rollout(outputs, order, T, P)
    assert weights.flatten().numpy() == pytest.approx(product[0, 1:].numpy(), abs=1e-6)
    assert 0 < weights.sum() < 1


@pytest.mark.parametrize("order", ATTENTION_ORDERS)
def test_explanations_add_up_and_say_what_the_model_says(order):
    model = eager(attention_order=order)
    explanation = explain_clip(face_clip(), model, make_processor())
    assert explanation.spatial.shape == (T, H, W)
    assert explanation.spatial.sum(axis=(1, 2)) == pytest.approx(1, abs=1e-5)
    assert explanation.temporal.shape == (T,)
    assert explanation.temporal.sum() == pytest.approx(1, abs=1e-5)
    assert min(explanation.spatial.min(), explanation.temporal.min()) >= 0
    pixels = make_processor()(face_clip(), return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        scores = model(pixels).logits[0].softmax(dim=-1).tolist()
    assert list(explanation.scores) == NAMES
    assert list(explanation.scores.values()) == pytest.approx(scores, abs=1e-5)
    assert NAMES.index(explanation.label) == int(np.argmax(scores))
    assert (explanation.frames == (255 * pixels[0]).round().byte().permute(0, 2, 3, 1).numpy()).all()


def test_frames_that_are_moved_take_their_attention_along():
    """Without positions in time, the order of frames is all that is told by them."""
    model = eager()
    torch.nn.init.zeros_(model.stt.embeddings.temporal_positions)
    frames = np.random.default_rng(0).integers(0, 256, (T, 32, 32, 3), dtype=np.uint8)
    order = [2, 0, 3, 1]
    before, after = (explain_clip(each, model, make_processor()) for each in (frames, frames[order]))
    assert np.ptp(before.temporal) > 0.005
    assert after.temporal == pytest.approx(before.temporal[order], abs=1e-5)
    assert after.spatial == pytest.approx(before.spatial[order], abs=1e-5)


def test_with_positions_the_attention_does_not_just_follow():
    frames = np.random.default_rng(0).integers(0, 256, (T, 32, 32, 3), dtype=np.uint8)
    before, after = (explain_clip(each, eager(), make_processor()) for each in (frames, frames[::-1].copy()))
    assert not np.allclose(after.temporal, before.temporal[::-1], atol=1e-3)


def test_a_window_of_a_video_is_explained_with_the_scores_of_its_row(tmp_path):
    path = write_video(tmp_path / "v.mp4", scene("happy", "sad", seconds=4))
    rows = {(row.track, row.start_s): row for row in reader()(path)}
    for track in (1, 2):
        explanation = explain(path, reader(), at_s=2.2, track=track)
        row = rows[track, 1.0]
        assert explanation.name == f"v.mp4, person {track}, 1 to 3 s"
        assert list(explanation.scores.values()) == pytest.approx(list(row.scores.values()), abs=1e-5)
        assert explanation.times_s[0] >= 1
        assert explanation.times_s[-1] <= 3
        assert explanation.frames.shape == (T, 32, 32, 3)


def test_windows_at_hand_need_no_second_reading():
    timeline = reader()
    for row, window in timeline.windows(timed(scene("happy", "", seconds=3))):
        explanation = explain_one_window(window, timeline, "here")
        assert list(explanation.scores.values()) == pytest.approx(list(row.scores.values()), abs=1e-5)
        assert explanation.name == f"here, person 1, {row.start_s:g} to {row.end_s:g} s"


def test_the_moment_chooses_the_window_that_a_chart_draws_there():
    frames = timed(scene("happy", "", seconds=4))
    spans = [explain(frames, reader(), at_s=at_s).name.split(", ")[2] for at_s in (0, 1.49, 1.51, 2.51, 4)]
    assert spans == ["0 to 2 s", "0 to 2 s", "1 to 3 s", "2 to 4 s", "2 to 4 s"]


def test_without_a_moment_it_is_the_first_face_and_without_a_track_the_largest():
    class UnequalDetector(HalvesDetector):
        def detect(self, frames):
            both = [HalvesDetector(scale).detect(frames) for scale in (0.6, 0.9)]
            return [[small[0], large[1]] if len(small) == 2 else small for small, large in zip(*both, strict=True)]

    frames = timed(scene("", "", seconds=3) + scene("happy", "sad", seconds=3))
    timeline = make_timeline(model=eager(), detector=UnequalDetector())
    assert explain(frames, timeline).name == "frames, person 2, 2 to 4 s"
    assert explain(frames, timeline, track=1).name == "frames, person 1, 2 to 4 s"


def test_nothing_is_read_beyond_the_window():
    taken = []

    def endless():
        image = scene("happy", "", seconds=1)[0]
        for n in range(100_000):
            taken.append(n)
            yield n / 25, image

    assert explain(endless(), make_timeline(model=eager(), batch_size=1), at_s=3.0).label in NAMES
    assert len(taken) < 400


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"at_s": 1.0}, r"At 1 s of the frames, a face cannot be scored; there is: no face"),
        ({"at_s": 5.0, "track": 7}, r"track 7 cannot be scored; there is: track 1 \(face\)"),
        ({"track": 7}, "no window in which track 7 can be scored; there is: track 1, track 2"),
        ({"at_s": 99.0}, "no frame at 99 s"),
        ({"at_s": -1.0}, "no frame at -1 s"),
        ({"at_s": float("nan")}, "no frame at nan s"),
    ],
)
def test_an_error_says_that_nothing_can_be_explained(where, message):
    frames = timed(scene("", "", seconds=3) + scene("happy", "", seconds=3) + scene("happy", "sad", seconds=3))
    with pytest.raises(ValueError, match=message):
        explain(frames, reader(), **where)


def test_an_error_says_that_nobody_can_be_explained():
    with pytest.raises(ValueError, match="no window in which a face can be scored; there is nothing to explain"):
        explain(timed(scene("", "", seconds=3)), reader())


@pytest.mark.parametrize("as_folder", [False, True])
def test_a_clip_that_was_hardly_cropped_is_warned_of(tmp_path, caplog, as_folder):
    """A whole frame was squeezed into a square without a word."""
    logging.warning_once.cache_clear()  # which warns once in a process
    for name, halves in (("film", ("happy", "")), ("face", ("happy",))):
        path = write_video(tmp_path / f"{name}.mp4", scene(*halves, seconds=1))
        if as_folder:
            path = tmp_path / name
            path.mkdir()
            for number, image in enumerate(scene(*halves, seconds=1)):
                Image.fromarray(image).save(path / f"{number}.png")
        explain_clip(path, eager(), make_processor())
    [record] = caplog.records  # once, and of the film alone
    assert record.message.startswith("Frames of 128 × 64 px are squeezed to the model's 32 × 32")
    assert "'stt crop'" in record.message


def test_another_back_end_is_refused_before_anything_is_read(tmp_path):
    model = make_model(attn_implementation="sdpa")
    with pytest.raises(ValueError, match=r"sdpa.*attn_implementation=\"eager\""):
        explain(tmp_path / "nowhere.mp4", make_timeline(model=model))
    with pytest.raises(ValueError, match=r"sdpa.*attn_implementation=\"eager\""):
        explain_clip(face_clip(), model, make_processor())
    model.set_attn_implementation("eager")
    assert explain(timed(scene("happy", "")), make_timeline(model=model)).label in NAMES


@pytest.mark.parametrize(("num_frames", "num_lines"), [(1, 1), (4, 1), (20, 2)])
def test_the_picture_has_every_frame_its_map_and_its_share(num_frames, num_lines, tmp_path):
    model = eager(num_frames=num_frames)
    explanation = explain_clip(
        face_clip(), model, type(make_processor())(size={"height": 32, "width": 32}, num_frames=num_frames)
    )
    figure = draw_explanation(explanation)
    maps = [axes.images[1].get_array() for axes in figure.axes if len(axes.images) == 2]
    assert np.array(maps) == pytest.approx(explanation.spatial * P)
    frames = [axes.images[0].get_array() for axes in figure.axes if len(axes.images) == 1 and not axes.axison]
    assert (np.array(frames) == explanation.frames).all()
    bars = [axes for axes in figure.axes if axes.get_ylabel().startswith("share")]
    assert len(bars) == num_lines
    heights = [bar.get_height() for axes in bars for bar in axes.patches]
    assert heights == pytest.approx(explanation.temporal)
    words = [text.get_text() for text in figure.texts]
    assert CAPTION in words
    assert any(explanation.label in each for each in words)
    figure.savefig(tmp_path / "x.png")


def test_clips_without_a_frame_rate_have_no_seconds():
    explanation = explain_clip(face_clip(), eager(), make_processor())
    assert explanation.times_s is None
    [bars] = [axes for axes in draw_explanation(explanation).axes if axes.get_ylabel().startswith("share")]
    assert bars.get_xlabel().startswith("number of the frame")


def test_pictures_of_normalised_clips_are_what_went_in():
    processor = type(make_processor())(size={"height": 32, "width": 32}, num_frames=T, do_normalize=True)
    plain, normalised = (explain_clip(face_clip(), eager(), each) for each in (make_processor(), processor))
    assert np.abs(plain.frames.astype(int) - normalised.frames).max() <= 1


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model"))


def test_the_picture_names_the_model_and_says_if_it_never_saw_a_real_face(tmp_path):
    """A picture travels without the command that made it."""
    folder = save_model(tmp_path / "mine")
    model = STTForVideoClassification.from_pretrained(folder, attn_implementation="eager")
    for synthetic, expected in ((True, "model mine · trained on synthetic faces"), (False, "model mine")):
        (folder / "results.json").write_text(json.dumps({"synthetic": synthetic}))
        figure = draw_explanation(explain_clip(face_clip(), model, make_processor()))
        assert expected in [text.get_text() for text in figure.texts]
    timeline = reader()
    figure = draw_explanation(explain(timed(scene("happy", "")), timeline))
    assert timeline.note() in [text.get_text() for text in figure.texts]


def run(*arguments):
    return cli.main(["explain", *map(str, arguments)])


DETECTOR = ["--detector", "helpers.face_videos:find_halves"]


def test_stt_explain_writes_the_picture(model_folder, tmp_path, capsys):
    video = write_video(tmp_path / "v.mp4", scene("happy", "", seconds=3))
    assert run(video, "--model", model_folder, "--at", "2.5", "--output", tmp_path / "x.png", *DETECTOR) == 0
    out = capsys.readouterr().out
    assert out.startswith("v.mp4, person ")
    assert ", 1 to 3 s: " in out
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    assert run(video, "--model", model_folder, "--clip", "--output", tmp_path / "x.svg") == 0
    assert (tmp_path / "x.svg").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--at", "99"], "no frame at 99 s"),
        (["--clip", "--at", "1"], "--clip explains a whole clip"),
        (["--output", "nowhere/x.png"], "no folder nowhere"),
        (["--output", "x.xyz"], "--output x.xyz must end in one of .png, .svg, .pdf"),
        (["--output", "x"], "--output x must end in one of"),  # x.png was written, and x told
        (["--model", "."], "config.json"),
    ],
)
def test_stt_explain_reports_errors(model_folder, tmp_path, capsys, options, message, monkeypatch):
    monkeypatch.chdir(tmp_path)
    video = write_video(tmp_path / "v.mp4", scene("happy", "", seconds=2))
    with pytest.raises(SystemExit) as error:
        run(video, "--model", model_folder, "--output", "x.png", *DETECTOR, *options)
    assert error.value.code == 2
    assert message in capsys.readouterr().err
