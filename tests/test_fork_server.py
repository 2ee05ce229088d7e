"""Programs of tests run as they would in a process that `python` starts."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.fork_server import ForkServer


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    server = ForkServer(os.environ, modules=("json",))
    yield server
    server.close()
    assert server.process.poll() == 0


CODE = {
    "result": "import os, sys; print(sys.argv, os.getcwd(), os.environ['MINE'], __name__, sys.stdin.read())",
    "status": "import sys; print('no', file=sys.stderr); sys.exit(7)",
    "message": "raise SystemExit('a word')",
    "error": "import atexit; atexit.register(print, 'at the end'); 1 / 0",
    "signal": "import os; os.kill(os.getpid(), 9)",
}


@pytest.mark.parametrize("name", CODE)
def test_output_and_exit_status_are_those_of_a_new_process(server: ForkServer, name: str, tmp_path: Path) -> None:
    words, environment = ["-c", CODE[name], "--word"], os.environ | {"MINE": name}
    done = server.run(words, tmp_path, environment, "input")
    expected = subprocess.run(
        [sys.executable, *words], input="input", capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert (done.returncode, done.stdout) == (expected.returncode, expected.stdout)
    assert done.stderr.splitlines()[-1:] == expected.stderr.splitlines()[-1:]


def test_scripts_and_modules_are_the_main_program(server: ForkServer, tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("WORD = 'beside'")
    (tmp_path / "script.py").write_text("import beside, sys; print(__name__, beside.WORD, sys.argv[1:])")
    for words in (["script.py", "a"], ["-m", "script", "a"]):
        assert server.run(words, tmp_path, os.environ).stdout == "__main__ beside ['a']\n"


def test_programs_know_nothing_of_each_other(server: ForkServer, tmp_path: Path) -> None:
    server.run(["-c", "import os, json; os.environ['LEFT'] = json.left = 'behind'"], tmp_path, os.environ)
    done = server.run(
        ["-c", "import os, json; print(os.environ.get('LEFT'), hasattr(json, 'left'))"], tmp_path, os.environ
    )
    assert done.stdout == "None False\n"


def test_a_program_that_takes_too_long_is_killed(server: ForkServer, tmp_path: Path) -> None:
    code = "import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(60)"
    with pytest.raises(subprocess.TimeoutExpired):
        server.run(["-c", code], tmp_path, os.environ, timeout=2)
    pid = int((tmp_path / "pid").read_text())
    for _ in range(200):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("it still runs")
