"""Every code block of the documentation runs, or says why it does not (see pages.py).

Blocks run unchanged. The folder in which they run makes them quick:

    demo/           output of `make demo`, from 35 clips and a model of one block trained for one epoch
    DFEW/ AFEW/ FERV39k/ MAFW/ my_clips/ videos/ clip.mp4    small made-up data
    bin/            `python`, `accelerate` and `stt` of this environment; to commands that name train.py or
                    cross_validate.py they append the options SMALL (a tiny model, one fold)
    examples/ benchmarks/ modeling_stt/                      those of this checkout
"""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from dataset_scripts.rendered_faces import write_rendered_dfew
from helpers import afew_trees, dfew_trees, ferv39k_trees, mafw_trees
from helpers.api_page import api_page
from helpers.models import TINY_MODEL
from helpers.pages import RUN, SHOWN, Block, read_blocks, run_blocks, skip_without_exporters
from helpers.programs import ROOT, run
from helpers.standin import HubStandIn

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SMALL = ["--num_train_epochs=1", "--per_device_train_batch_size=8", "--use_cpu=True", "--dataloader_num_workers=0"]

# A program of the folder bin/: runs {module} by the page's server, and appends options to those of a training. The
# programs that `accelerate` starts are of this folder, too.
PROGRAM = """#!{python} -SE
import os, sys
sys.path.insert(0, {helpers!r})
from fork_server import ADDRESS, run_at
words = [*{module!r}, *sys.argv[1:]]
scripts = [word for word in words if word.endswith(("examples/train.py", "examples/cross_validate.py"))]
if scripts and {small!r}[0] not in words:
    words += {small!r}
    if "--model" not in words:
        words += ["--model_config", {model!r}]
    if scripts[0].endswith("cross_validate.py"):
        words += ["--folds", "1"]
if ADDRESS not in os.environ or not (words and (words[0] in ("-m", "-c") or words[0].endswith(".py"))):
    os.execv({python!r}, [{python!r}, *words])
files = sys.stdin, sys.stdout, sys.stderr
status = run_at(os.environ[ADDRESS], words, os.getcwd(), os.environ, files, executable={executable!r})
sys.exit(status if status >= 0 else 128 - status)
"""
PROGRAMS = {
    "python": [],
    "python3": [],
    "accelerate": ["-m", "accelerate.commands.accelerate_cli"],
    "stt": ["-m", "modeling_stt.cli"],
}


def write_programs(folder: Path) -> None:
    folder.mkdir()
    for name, module in PROGRAMS.items():
        text = PROGRAM.format(
            python=sys.executable,
            executable=str(folder / "python") if name == "accelerate" else sys.executable,
            helpers=str(ROOT / "tests" / "helpers"),
            module=module,
            small=SMALL,
            model=json.dumps(TINY_MODEL),
        )
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)


def write_data(folder: Path) -> None:
    data = write_rendered_dfew(
        folder / "demo" / "RenderedDFEW", num_clips=35, num_frames=16, image_size=112, num_workers=1, progress=False
    )
    shutil.copytree(data, folder / "DFEW")
    faces = folder / "DFEW" / "Clip" / "clip_224x224"
    dfew_trees.write_16f(faces.with_name("clip_224x224_16f"), [int(clip.name) for clip in faces.iterdir()])
    afew_trees.write_videos(folder / "AFEW")
    afew_trees.write_faces(folder / "AFEW")
    ferv39k_trees.write_ferv39k(folder / "FERV39k")
    mafw_trees.write_mafw(folder / "MAFW")
    for split, label in (("train", "happy"), ("train", "sad"), ("test", "happy"), ("test", "sad")):
        dfew_trees.write_frames(folder / "FER2013" / split / label, ["1.png", "2.png"])
    videos = sorted((data / "Clip" / "original").rglob("*.mp4"))
    shutil.copy(videos[0], folder / "clip.mp4")
    (folder / "videos").mkdir()
    for video in videos[1:3]:
        shutil.copy(video, folder / "videos")
    for i, video in enumerate(videos[:20]):
        name = folder / "my_clips" / ("yes", "no")[i % 2] / f"person{i // 4}_{i}.mp4"
        name.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(video, name)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which a page runs, as each page finds it."""
    folder = tmp_path_factory.mktemp("docs")
    for name in ("examples", "benchmarks", "modeling_stt"):
        (folder / name).symlink_to(ROOT / name)
    write_programs(folder / "bin")
    write_data(folder)
    options = [
        "--data_dir=demo/RenderedDFEW",
        "--output_dir=demo/compact",
        f"--model_config={json.dumps(TINY_MODEL)}",
    ]
    done = run("examples/train.py", "--recipe=examples/recipes/demo.yaml", *options, *SMALL, cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture
def home(prepared: Path, tmp_path: Path) -> Path:
    """A copy of that folder, in which one page may write."""
    return shutil.copytree(prepared, tmp_path / "home", symlinks=True)


def blocks_to_run(page: Path) -> list[Block]:
    return [block for block in read_blocks(page) if block.is_run()]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks_to_run(page)], ids=lambda page: page.stem)
def test_code_of_a_page_runs(page: Path, home: Path) -> None:
    if page.stem == "export":
        skip_without_exporters()
    blocks = blocks_to_run(page)
    with HubStandIn() as hub:  # asked only by `stt publish` and by loading a model by name
        variables = hub.environment("user") if page.stem == "publish" else {}
        printed = run_blocks([block for block in blocks if not block.missing()], home, **variables)
    assert "failed  source" not in printed, (
        "`stt verify` found no clips; its exit status for too few clips is the same"
    )
    if missing := sorted({name for block in blocks for name in block.missing()}):
        pytest.skip(f"all ran but the blocks that need {', '.join(missing)}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_runs_or_says_why_not_or_is_not_code(page: Path) -> None:
    for block in read_blocks(page):
        known = block.language in SHOWN or block.is_run() or (block.language in RUN and len(block.not_run) > 5)
        assert known, f'{page.name}:{block.line}: a block is one of {RUN} (not-run="why"), or one of {SHOWN}'
    assert page.read_text().count("```") == 2 * len(read_blocks(page)), f"{page.name}: a fence without its other half"


def headings(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_of_a_page_have_targets(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, anchor = link.partition("#")
        if ":" in path:
            continue
        target = page.parent / path if path else page
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in headings(target), f"{page.name}: {link}"


def test_the_readme_shows_its_real_output(home: Path) -> None:
    """Labels and form of the output are compared; numbers may differ in their last digits on another machine."""
    blocks = read_blocks(ROOT / "README.md")
    shown = [i for i, block in enumerate(blocks) if block.language == "text"]
    assert shown
    code = [block for block in blocks[: shown[-1]] if block.language == "python"]
    printed = re.sub(r"\d+", "0", run_blocks(code, home))
    for i in shown:
        assert blocks[i - 1].language == "python"
        assert re.sub(r"\d+", "0", blocks[i].code) in printed


def test_the_api_page_is_generated_from_the_docstrings() -> None:
    page = ROOT / "docs" / "api.md"
    if os.environ.get("STT_WRITE_API"):
        page.write_text(api_page(), encoding="utf-8")
    assert page.read_text(encoding="utf-8") == api_page(), "STT_WRITE_API=1 pytest tests/test_docs.py -k api writes it"


def test_make_targets_of_the_readme_exist_and_ci_runs_them() -> None:
    shown = "".join(block.code for block in read_blocks(ROOT / "README.md") if block.not_run)
    targets = re.findall(r"^make ([\w-]+)", shown, re.MULTILINE)
    assert targets == ["demo", "test"]
    for target in targets:
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert re.search(rf"^make {target}$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)


PAGE = """
```python
x = 1
```
```bash
test "$(python -c 'print(6 * 7)')" = 42
echo made > file
```
```python
print(x, open("file").read())
```
```python not-run="it would fail"
raise SystemExit(1)
```
```text
1 made
```
"""


def test_blocks_of_a_page_run_in_order_in_one_process(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(PAGE)
    write_programs(tmp_path / "bin")
    blocks = read_blocks(tmp_path / "page.md")
    assert [block.language for block in blocks] == ["python", "bash", "python", "python", "text"]
    assert "1 made" in run_blocks([block for block in blocks if block.is_run()], tmp_path, modules=())


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("```python\n\nraise KeyError('lost')\n```", r'page.md", line 4, in <module>[\s\S]*lost'),
        ("```bash\nfalse\ntrue\n```", "returned non-zero exit status 1"),
        ("```bash exit=1\nfalse\n(exit 2)\ntrue\n```", "returned non-zero exit status 2"),
        ("```python without=torch,av\nimport torch.nn\n```", "No module named 'torch'"),
    ],
    ids=["python", "bash", "status", "without"],
)
def test_a_block_that_fails_fails_its_page(block: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(f"\n{block}\n")
    with pytest.raises(AssertionError, match=message):
        run_blocks(read_blocks(tmp_path / "page.md"), tmp_path, modules=())


def test_unknown_words_after_a_language_are_refused(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("```bash without=torch\ntrue\n```\n")
    with pytest.raises(AssertionError, match=r"page.md:1"):
        read_blocks(tmp_path / "page.md")
