"""Run a target of `tests/fuzz.py` under atheris, led by the coverage of our code and Pillow's.

``python -m tests.run_fuzzer zip -max_total_time=60``; the rest of the command line is libFuzzer's.
It starts from `SEEDS`; an input that fails is written to the folder where it runs.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path

atheris = importlib.import_module("atheris")  # there for the fuzz session alone

with atheris.instrument_imports(
    include=["adios_tme.data", "adios_tme.benchmark.nuclei", "PIL", "pickle"]
):
    from tests.fuzz import TARGETS
    from tests.fuzz_seeds import SEEDS


def main() -> None:
    name = sys.argv.pop(1)
    corpus = Path(tempfile.mkdtemp(prefix=f"fuzz_{name}_"))
    for number, seed in enumerate(SEEDS[name]):
        (corpus / str(number)).write_bytes(seed())
    atheris.Setup([*sys.argv, str(corpus)], TARGETS[name])
    atheris.Fuzz()  # leaves the process


if __name__ == "__main__":
    main()
