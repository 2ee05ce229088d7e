"""The examples work as their users would call them, and as the README says, on a small tree of rendered faces."""

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from dataset_scripts.rendered_faces import write_rendered_dfew
from helpers import afew_trees
from helpers.face_videos import make_timeline, scene
from helpers.models import TINY_MODEL
from helpers.programs import ROOT, run
from helpers.videos import write_video
from modeling_stt import STTVideoProcessor
from modeling_stt.hub import publish
from modeling_stt.timeline import FaceCrop
from modeling_stt.training.data import lies_in_marked_tree
from modeling_stt.training.options import RunArguments, parse_arguments, read_recipe
from modeling_stt.training.start import note_face_crop

TINY = ["--num_train_epochs=2", "--per_device_train_batch_size=8", "--use_cpu=True", "--disable_tqdm=True"]
LAUNCH = ["-m", "accelerate.commands.launch"]


def readme_command(start: str) -> list[str]:
    """The line of the README that starts so, as words, the programs' paths made absolute."""
    line = next(line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith(start))
    return [str(ROOT / word) if word.startswith("examples/") else word for word in shlex.split(line)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tree DFEW/ in it, as the README's commands expect one."""
    folder = tmp_path_factory.mktemp("home")
    write_rendered_dfew(
        folder / "DFEW", num_clips=70, num_frames=8, image_size=40, balance="dfew", num_workers=1, progress=False
    )
    return folder


@pytest.fixture(scope="module")
def trained(home: Path) -> Path:
    """The model of the README's training command, made tiny."""
    accelerate, launch, *command = readme_command("accelerate launch")
    assert (accelerate, launch) == ("accelerate", "launch")
    done = run(*LAUNCH, *command, *TINY, "--model_config", json.dumps(TINY_MODEL), cwd=home)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "synthetic faces as dfew fold 1: WAR" in done.stdout
    return home / "runs" / "dfew_fold_1"


def test_train_writes_model_results_and_picture(trained: Path) -> None:
    results = json.loads((trained / "results.json").read_text())
    assert (results["dataset"], results["fold"], results["synthetic"]) == ("dfew", 1, True)
    assert results["classes"] == ["happy", "sad", "neutral", "angry", "surprise", "disgust", "fear"]
    # Rendered faces; as many clips as the lists name, but not as many as are published of DFEW.
    assert results["verification"]["comparable"] is False
    assert [text.split(":")[0] for text in results["verification"]["failed"]] == ["real faces", "counts"]
    assert results["start"] == {"model": None, "backbone_weights": None, "sha256_of_weights": None}
    assert (trained / "confusion.png").read_bytes().startswith(b"\x89PNG")
    assert {"model.safetensors", "modeling_stt.py", "video_reading_stt.py"} <= {p.name for p in trained.iterdir()}


def test_what_train_leaves_can_be_published(trained: Path) -> None:
    files = publish(trained, "user/stt", dry_run=True).files
    assert files["model.safetensors"] == trained / "model.safetensors"
    assert b"> **Trained and evaluated on synthetic faces" in files["README.md"]
    assert str(trained.parents[1]).encode() not in files["results.json"] + files["README.md"]


def test_defaults_are_those_of_the_written_recipe(home: Path) -> None:
    # recipes/dfew.yaml is there to be read: it must say what is done without it.
    options = ["--data_dir=DFEW", f"--output_dir={home / 'unused'}", "--use_cpu=True"]
    run_plain, args_plain = parse_arguments(options)
    run_recipe, args_recipe = parse_arguments([f"--recipe={ROOT / 'examples/recipes/dfew.yaml'}", *options])
    assert run_recipe == run_plain
    assert {k: v for k, v in args_recipe.to_dict().items() if v != args_plain.to_dict()[k]} == {}


@pytest.mark.parametrize("recipe", sorted((ROOT / "examples/recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_option_of_a_recipe_is_one_of_train_py(recipe: Path, tmp_path: Path) -> None:
    """Its values arrive as they are written, and those that follow papers name the source of each."""
    run_options, args = parse_arguments(
        [f"--recipe={recipe}", "--data_dir=DFEW", f"--output_dir={tmp_path}", "--use_cpu"]
    )
    written = yaml.safe_load(recipe.read_text())
    for name, value in written.items():
        read = getattr(run_options if hasattr(run_options, name) else args, name)
        read = json.loads(read) if isinstance(value, dict) else getattr(read, "value", read)
        assert read == value, name
    lines = [
        line for line in recipe.read_text().splitlines() if line.partition(":")[0] in written.keys() - {"dataset"}
    ]
    if recipe.stem not in ("demo", "rendered"):  # ours as a whole
        assert [line for line in lines if not re.search(r"# \[(P|A|C|S|ours)\]", line)] == []


def test_train_runs_in_two_processes_with_the_demo_recipe(home: Path, tmp_path: Path) -> None:
    flags = ["--multi_gpu", "--num_processes=2", "--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no"]
    command = ["examples/train.py", "--recipe=examples/recipes/demo.yaml", f"--data_dir={home / 'DFEW'}", *TINY]
    command += ["--model_config", json.dumps(TINY_MODEL), f"--output_dir={tmp_path / 'two'}"]
    done = run(*LAUNCH, *flags, "--main_process_port=0", *command, ACCELERATE_USE_CPU="true")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("dfew fold 1: WAR") == 1, "one process reports"
    results = json.loads((tmp_path / "two" / "results.json").read_text())
    assert results["environment"]["num_processes"] == 2
    assert results["test"]["num_clips"] == sum(results["clips"]["test"]["per_class"].values()), (
        "each test clip counts once"
    )


@pytest.mark.parametrize("program", [["examples/train.py"], ["-m", "modeling_stt.cli", "train"]])
def test_train_refuses_a_folder_that_holds_a_run(program: list[str], trained: Path, home: Path) -> None:
    done = run(*program, *TINY, "--fold=1", f"--data_dir={home / 'DFEW'}", f"--output_dir={trained}")
    assert done.returncode != 0
    assert "holds a finished run" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_finished_run_says_that_nothing_was_trained(trained: Path, home: Path) -> None:
    command = [*readme_command("accelerate launch")[2:], *TINY, "--resume_from_checkpoint=last"]
    done = run(*command, "--model_config", json.dumps(TINY_MODEL), cwd=home)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "already finished, nothing trained" in done.stdout


def test_help_shows_our_options_first(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        parse_arguments(["--help"], "Train STT.")
    shown = capsys.readouterr().out
    places = [shown.index(text) for text in ("Train STT.", "data:", "--fold FOLD", "model:", "protocol:", "--logging")]
    assert places == sorted(places)


def test_a_wheel_carries_the_examples_for_stt_train(tmp_path: Path) -> None:
    done = run("setup.py", "--quiet", "build_py", "--build-lib", tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    done = run(
        "-m",
        "modeling_stt.cli",
        "train",
        "--fold=6",
        "--data_dir=x",
        "--output_dir=y",
        *TINY,
        cwd=tmp_path,
        PYTHONPATH=str(tmp_path),
    )
    assert "dfew comes as fold_1" in done.stderr and "not as fold_6" in done.stderr
    assert (tmp_path / "modeling_stt" / "examples" / "recipes" / "dfew.yaml").is_file()


def test_train_says_what_is_missing_of_the_data(tmp_path: Path) -> None:
    done = run("examples/train.py", *TINY, "--fold=1", f"--data_dir={tmp_path}", f"--output_dir={tmp_path / 'run'}")
    assert done.returncode != 0
    assert str(tmp_path) in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_predict_names_expressions_and_survives_bad_videos(trained: Path, home: Path, tmp_path: Path) -> None:
    program, option, model = "examples/predict.py", "--model", trained
    video = next((home / "DFEW" / "Clip" / "original").rglob("*.mp4"))
    frames = next(folder for folder in (home / "DFEW" / "Clip" / "clip_224x224").iterdir() if folder.is_dir())
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    picture = tmp_path / "picture.png"
    videos = [video, text, tmp_path / "missing.mp4", frames]
    done = run(program, *videos, "--clip", option, model, "--top_k=2", f"--picture={picture}")
    lines = done.stdout.splitlines()
    assert [line.split(": ")[0] for line in lines] == [str(video), str(frames)]
    assert all(len(line.split(", ")) == 2 for line in lines)
    assert f"{text}: not classified" in done.stderr and "missing.mp4: not classified" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == 1
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_predict_answers_for_the_face_longest_in_sight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    from predict import classify_face

    timeline = make_timeline(thumbnails=True)
    video = write_video(tmp_path / "film.mp4", scene("happy", "", seconds=3))
    scores, pictures = classify_face(video, timeline)
    rows = [row for row in timeline(str(video)) if row.scores]
    assert len(rows) > 1 and len(pictures) == len(rows)
    assert scores == pytest.approx({k: sum(r.scores[k] for r in rows) / len(rows) for k in timeline.class_names})
    # Without --picture no pictures are made; every video was then refused.
    without, none = classify_face(video, make_timeline())
    assert (without, len(none)) == (scores, 0)
    empty = write_video(tmp_path / "empty.mp4", scene("", ""))
    with pytest.raises(ValueError, match=r"empty.mp4: no face was found. .* needs --clip"):
        classify_face(empty, timeline)


def test_predict_blames_a_damaged_model_and_not_the_video(trained: Path, home: Path, tmp_path: Path) -> None:
    # NaN was printed as "happy nan", with status 0.
    damaged = shutil.copytree(trained, tmp_path / "damaged", ignore=shutil.ignore_patterns("checkpoint-*"))
    (damaged / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    frames = next(folder for folder in (home / "DFEW" / "Clip" / "clip_224x224").iterdir() if folder.is_dir())
    done = run("examples/predict.py", frames, "--model", damaged)
    assert done.returncode == 1
    assert str(damaged) in done.stderr and "not classified" not in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dataset=dfwe", "--fold=1"], "--dataset dfwe is unknown: choose one of afew"),
        (["--dataset=dfew"], "dfew comes as fold_1, .* not as default: choose one by --fold 1"),
        (["--fold=6"], "dfew comes as fold_1, .* not as fold_6"),
        (["--fold=1", "--configuration=compound"], "dfew comes as fold_1, .* not as compound_fold_1"),
        (["--fold=1", "--data_options=[1]"], "--data_options must be a JSON object"),
        (["--fold=1", '--data_options={"frame": "16f"}'], "dfew has no frame, only missing, frames, clip_dir"),
        (["--dataset=afew", "--soft_labels=True"], "votes, which afew does not come with"),
        (["--fold=1", "--model_config={"], "--model_config is not JSON"),
        (["--fold=1", '--model_config={"hidden_sizes": 3}'], "it has no hidden_sizes"),
        (["--fold=1", '--photometry={"grey": 1}'], "--photometry has no grey, only color, gray"),
        (["--fold=1", '--photometry={"gray": 2}'], "gray=2 is the probability of a change"),
        (["--fold=1", "--model=somewhere", "--backbone_weights=w.pth"], "--model has its own settings"),
        (["--fold=1", "--backbone_weights=ResNet18_Weights.IMAGENET1K_V1"], "add --do_normalize True"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(
    options: list[str], message: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    from train import train

    with pytest.raises(SystemExit, match=message):
        train([*TINY, *options, f"--data_dir={home / 'DFEW'}", f"--output_dir={tmp_path / 'run'}"])


@pytest.mark.parametrize(("text", "message"), [("- 1", "must hold lines of"), ("a: [", "is not YAML")])
def test_a_file_that_is_not_a_recipe_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(SystemExit, match=message):
        read_recipe(tmp_path / "recipe.yaml")


def test_synthetic_faces_are_known_wherever_the_tree_begins(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # DFEW is found a folder further down, too; its scores must not pass for DFEW's then.
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    from train import SYNTHETIC_MARKER, load_rows

    rows = load_rows(RunArguments(data_dir=str(home)), "fold_1", {})
    assert lies_in_marked_tree(rows.test[0], SYNTHETIC_MARKER)
    assert not lies_in_marked_tree({"frames": [str(tmp_path / "1.jpg")]}, SYNTHETIC_MARKER)


def test_clips_without_a_frame_are_refused_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # AFEW's rows keep clips without faces, so that none is lost in silence; they cannot be trained on.
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    from train import load_rows

    afew_trees.write_videos(tmp_path)
    afew_trees.write_faces(tmp_path, without=["train/000000014"])
    run = RunArguments(data_dir=str(tmp_path), dataset="afew")
    with pytest.raises(SystemExit, match=r"1 clips of afew have no frame \(train/000000014\).*missing"):
        load_rows(run, "default", {"frames": "faces"})
    rows = load_rows(run, "default", {"frames": "faces", "missing": "skip"})
    assert len(rows.train) == 20


def test_own_clips_are_fine_tuned_on_by_the_documented_command(trained: Path, home: Path) -> None:
    videos = sorted((home / "DFEW" / "Clip" / "original").rglob("*.mp4"))
    for i, video in enumerate(videos[:30]):
        name = home / "my_clips" / ("yes", "no")[i % 2] / f"person{i // 6}_{i}.mp4"
        name.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(video, name)
    crop = {"margin": 0.2, "align": True, "size": 40, "min_side": 24}
    (home / "my_clips" / "face_crop.json").write_text(json.dumps(crop))  # as `stt crop` does
    commands = (ROOT / "docs" / "data.md").read_text().replace("\\\n", " ").splitlines()
    [command] = [line for line in commands if "--dataset clip_folder" in line]
    done = run(
        *LAUNCH,
        *[str(ROOT / w) if w.startswith("examples/") else w for w in shlex.split(command)[2:]],
        *TINY,
        "--data_options",
        '{"groups": "^(.*?)_"}',
        cwd=home,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads((home / "runs" / "my_clips" / "results.json").read_text())
    assert results["classes"] == ["no", "yes"]
    assert results["start"]["model"] == "runs/dfew_fold_1" and len(results["start"]["sha256_of_weights"]) == 64
    assert results["verification"] == {"comparable": None, "failed": [], "warning": []}
    assert results["test"]["num_clips"] == 6, "one person of five"
    assert results["face_crop"] == crop
    assert STTVideoProcessor.from_pretrained(home / "runs" / "my_clips").face_crop == crop


@pytest.mark.parametrize(
    ("own", "in_data", "given", "expected"),
    [
        (None, None, None, None),
        (0.3, None, None, 0.3),  # with a warning
        (0.3, 0.1, None, 0.1),
        (None, 0.1, 0.2, 0.2),
    ],
)
def test_the_models_face_crop_is_that_of_its_training(own, in_data, given, expected, tmp_path, monkeypatch, caplog):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    from train import read_face_crop

    def crop(margin: float | None) -> dict[str, Any] | None:
        return None if margin is None else FaceCrop(margin=margin).to_dict()

    for margin, name in ((in_data, "face_crop.json"), (given, "given.json")):
        if margin is not None:
            (tmp_path / name).write_text(json.dumps(crop(margin)))
    processor = STTVideoProcessor(face_crop=crop(own))
    run = RunArguments(str(tmp_path), face_crop=given and str(tmp_path / "given.json"))
    note_face_crop(processor, read_face_crop(run))
    assert processor.face_crop == crop(expected)
    assert ("taken to be cropped as" in caplog.text) == (own is not None and in_data is None)


def test_finetuning_starts_from_a_trained_model(trained: Path, home: Path, tmp_path: Path) -> None:
    options = [f"--data_dir={home / 'DFEW'}", "--fold=1", f"--model={trained}", f"--output_dir={tmp_path / 'run'}"]
    done = run("examples/train.py", *TINY, *options, "--learning_rate=0", "--batch_norm=frozen")
    assert done.returncode == 0, done.stderr[-3000:]
    before, after = (json.loads((run / "results.json").read_text())["test"] for run in (trained, tmp_path / "run"))
    assert after == before, "nothing was learned at rate 0, so nothing may have changed"


def test_the_demos_new_process_prints_answers_and_nothing_else(
    trained: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A table of transformers, of the head that AutoModel leaves out, once stood in the middle of the demo's output.
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    from demo import CLASSIFY

    video = next((home / "DFEW" / "Clip" / "original").rglob("*.mp4"))
    done = run("-I", "-c", CLASSIFY, trained, video)
    assert done.stderr == ""
    assert "AutoModel gives STTModel" in done.stdout and len(done.stdout.splitlines()) == 4 + 3
