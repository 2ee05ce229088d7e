"""Time of `import modeling_stt`, beside `import transformers` and `import torch`, in fresh interpreters.

    python benchmarks/startup.py

The statements take turns, so that a machine that slows down slows all. Prints best and median of each.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from modeling_stt.training.environment import describe_environment
from modeling_stt.training.results import write_results

STATEMENTS = (
    "pass",
    "import torch",
    "import transformers",
    "import modeling_stt",
    "from transformers import AutoModelForVideoClassification",
    "from transformers import VideoMAEForVideoClassification, VideoMAEVideoProcessor",
    "from modeling_stt import STTForVideoClassification, STTVideoProcessor",
)


def seconds(statement: str) -> float:
    """Wall time of an interpreter that does nothing else."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], cwd=Path(__file__).parents[1], check=True)
    return time.perf_counter() - began


def main() -> None:
    """Time the statements in turn and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "startup.json")
    arguments = parser.parse_args()
    for statement in STATEMENTS:
        seconds(statement)  # the first one compiles to bytecode and fills the file cache
    times: dict[str, list[float]] = {statement: [] for statement in STATEMENTS}
    for _ in range(arguments.repeats):
        for statement in STATEMENTS:
            times[statement].append(seconds(statement))
    rows = [{"statement": name, "best": min(values), "median": median(values)} for name, values in times.items()]
    for row in rows:
        print(f"{row['statement']:<82}best {row['best']:6.2f} s   median {row['median']:6.2f} s")
    write_results(arguments.output, {"seconds": rows, "environment": describe_environment()})


if __name__ == "__main__":
    main()
