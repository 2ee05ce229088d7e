"""Any classifier of the Hub gives the rows that a direct call of it gives for the same crops."""

import logging

import numpy as np
import pytest
import torch

from helpers.face_videos import CROP, NAMES, HalvesDetector, HalvesTracker, make_model, make_processor, scene, timed
from helpers.hub_models import HUB_NAMES, PROCESSORS, save_hub_model
from modeling_stt.loading import ModelError, load_model
from modeling_stt.timeline import Timeline
from modeling_stt.timeline.faces import FaceCrop
from modeling_stt.timeline.scorers import IMAGES_A_WINDOW, canonical_names
from modeling_stt.video_processing_stt import sample_frame_indices

SEEN = {"detector": HalvesDetector(), "tracker": HalvesTracker}


def direct_scores(folder, window, num_frames):
    """Probabilities of a window by the model's own forward pass and the processor of its class."""
    model, processor = load_model(folder)
    crops = [s.crop for s in window.sightings]
    if hasattr(processor, "do_sample_frames"):
        clip = np.stack([crops[i] for i in sample_frame_indices(len(crops), num_frames, 1)])
        inputs = processor([clip], do_sample_frames=False, return_tensors="pt")
    else:
        chosen = sample_frame_indices(len(crops), 2 * IMAGES_A_WINDOW, 2)[::2]
        inputs = processor([crops[i] for i in chosen], return_tensors="pt")
    with torch.no_grad():
        return model(**inputs).logits.softmax(dim=-1).mean(dim=0).tolist()


@pytest.mark.parametrize("kind", PROCESSORS)
def test_rows_equal_direct_calls_of_the_same_crops(tmp_path, kind):
    folder = save_hub_model(tmp_path / kind, kind)
    reader = Timeline(folder, **SEEN)
    pairs = list(reader.windows(timed(scene("happy", "sad", seconds=3))))
    assert len(pairs) == 4
    config = reader.scorer.model.config
    num_frames = getattr(config, "num_frames", None) or getattr(config, "frames_per_clip", None)
    assert reader.class_names == HUB_NAMES
    assert reader.crop.size == (36 if kind in ("vivit", "vjepa2") else 32)
    for row, window in pairs:
        assert list(row.scores) == HUB_NAMES
        assert list(row.scores.values()) == pytest.approx(direct_scores(folder, window, num_frames), abs=1e-5)
    assert len({round(row.scores["anger"], 4) for row, _ in pairs}) > 1  # or any scores would do


def test_an_image_model_answers_each_face_once(tmp_path):
    reader = Timeline(save_hub_model(tmp_path / "vit", "vit"), batch_size=1, **SEEN)
    num_faces = []
    reader.scorer.model.vit.register_forward_hook(lambda module, args, output: num_faces.append(len(output[0])))
    windows = [window for _, window in reader.windows(timed(scene("happy", "", seconds=5)))]
    asked = {id(s) for window in windows for s in reader.scorer.sample(window)}
    assert sum(num_faces) == len(asked) < len(windows) * IMAGES_A_WINDOW


def test_a_loaded_model_of_transformers_is_taken_with_its_processor(tmp_path):
    folder = save_hub_model(tmp_path / "vit", "vit")
    model, processor = load_model(folder)
    frames = timed(scene("happy", "", seconds=2))
    assert list(Timeline(model, processor, **SEEN)(frames)) == list(Timeline(folder, **SEEN)(frames))
    with pytest.raises(ValueError, match="needs its processor"):
        Timeline(model, **SEEN)


def test_a_function_is_a_model():
    seen = []

    def answer(crops):
        seen.append(crops.shape)
        return [0.2, 0.8]

    [row] = Timeline(answer, class_names=["no", "yes"], **SEEN)(timed(scene("happy", "", seconds=2)))
    assert (row.label, row.scores) == ("yes", {"no": 0.2, "yes": 0.8})
    assert seen == [(50, 112, 112, 3)]
    with pytest.raises(ValueError, match=r"function test_scorers:test_a_function_is_a_model.* does not name its"):
        Timeline(answer, **SEEN)
    with pytest.raises(ValueError, match="class_names are for a function as model"):
        Timeline(make_model(), make_processor(), class_names=["no", "yes"], **SEEN)


def test_a_function_is_a_model_by_its_name(tmp_path, monkeypatch):
    (tmp_path / "own_net.py").write_text(
        "from modeling_stt.timeline import FaceCrop\n"
        "def answer(crops):\n    return [crops.shape[1] / 100, 1 - crops.shape[1] / 100]\n"
        "answer.class_names, answer.face_crop = ['no', 'yes'], FaceCrop(size=20)\n"
        "def nameless(crops):\n    return [1.0]\n"
    )
    monkeypatch.chdir(tmp_path)
    reader = Timeline("own_net:answer", **SEEN)
    [row] = reader(timed(scene("happy", "", seconds=2)))
    assert row.scores == {"no": 0.2, "yes": 0.8}
    assert reader.settings()["model"] == "own_net:answer"
    with pytest.raises(ValueError, match=r"own_net:nameless does not name its classes"):
        Timeline("own_net:nameless", **SEEN)
    with pytest.raises(ValueError, match=r"no function 'other' in own_net, which model='own_net:other' asks for"):
        Timeline("own_net:other", **SEEN)
    with pytest.raises(ImportError, match="absent_net"):
        Timeline("absent_net:answer", **SEEN)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ([0.5, float("nan")], "answers NaN or infinity.*No video is to blame"),
        ([0.7, 0.9], "expected probabilities that sum to 1"),
        ([1.0], r"shape \(1,\): expected a probability for each of no, yes"),
    ],
)
def test_answers_that_are_not_probabilities_are_the_models_fault(answer, message):
    """A model that answered NaN was printed as "happy nan" with exit status 0."""
    reader = Timeline(lambda crops: answer, class_names=["no", "yes"], **SEEN)
    with pytest.raises(ModelError, match=message):
        list(reader(timed(scene("happy", "", seconds=2))))


def test_a_model_that_answers_nan_is_blamed():
    model = make_model()
    with torch.no_grad():
        model.classifier.weight.fill_(float("inf"))
    with pytest.raises(ModelError, match="answers NaN or infinity"):
        list(Timeline(model, make_processor(), **SEEN)(timed(scene("happy", "", seconds=2))))


def test_class_names_get_one_spelling():
    names, unmapped = canonical_names(["anger", "Happiness", "suprise", "disgusted", "LABEL_3", "happy"])
    assert names == ["angry", "happy", "surprise", "disgust", "LABEL_3", "happy"]
    assert unmapped == ["LABEL_3", "happy"]


def test_canonical_labels_are_in_the_rows_and_unmapped_ones_are_named(tmp_path, caplog):
    folder = save_hub_model(tmp_path / "vit", "vit", ["anger", "happiness", "LABEL_2"])
    with caplog.at_level(logging.WARNING):
        reader = Timeline(folder, labels="canonical", **SEEN)
    assert "These classes keep the model's names, as none fits: LABEL_2." in caplog.text
    assert "does not name its classes (LABEL_2)" in caplog.text
    [row] = reader(timed(scene("happy", "", seconds=2)))
    assert list(row.scores) == reader.class_names == ["angry", "happy", "LABEL_2"]


def test_the_crop_of_a_file_beside_the_model_is_used(tmp_path, caplog):
    folder = save_hub_model(tmp_path / "vit", "vit")
    with caplog.at_level(logging.WARNING):
        Timeline(folder, **SEEN)
    assert "does not say how its training faces were cropped" in caplog.text
    caplog.clear()
    (folder / "face_crop.json").write_text('{"margin": 0.3, "align": false}')
    assert Timeline(folder, **SEEN).crop == FaceCrop(margin=0.3, align=False, size=32)
    assert not caplog.records
    assert Timeline(folder, face_crop=FaceCrop(margin=0.5, size=64), **SEEN).crop.margin == 0.5


def test_answers_below_the_threshold_are_unsure_and_keep_their_scores():
    frames = timed(scene("happy", "sad", seconds=3))
    sure = list(Timeline(make_model(), make_processor(), **SEEN)(frames))
    threshold = sorted(max(row.scores.values()) for row in sure)[len(sure) // 2]
    rows = list(Timeline(make_model(), make_processor(), min_score=threshold, **SEEN)(frames))
    assert {row.state for row in rows} == {"face", "unsure"}
    for before, after in zip(sure, rows, strict=True):
        assert after.scores == before.scores
        assert after.likeliest == before.label
        is_sure = max(before.scores.values()) >= threshold
        assert (after.state, after.label) == (("face", before.label) if is_sure else ("unsure", None))


def test_the_models_own_threshold_is_the_default():
    assert Timeline(make_model(min_score=0.7), make_processor(), **SEEN).min_score == 0.7
    assert Timeline(make_model(min_score=0.7), make_processor(), min_score=0.0, **SEEN).min_score == 0.0
    assert Timeline(make_model(), make_processor(), **SEEN).min_score is None
    assert CROP["size"] == Timeline(make_model(), make_processor(), **SEEN).crop.size
    assert Timeline(make_model(), make_processor(), **SEEN).class_names == NAMES
