"""Run a target of `tests/fuzz.py` under atheris, led by the coverage of our code and Pillow's.

``python -m tests.run_fuzzer zip -max_total_time=60``; the rest of the command line is libFuzzer's.
"""

from __future__ import annotations

import importlib
import sys

atheris = importlib.import_module("atheris")  # there for the fuzz session alone

with atheris.instrument_imports(
    include=["adios_tme.data", "adios_tme.benchmark.nuclei", "PIL", "pickle"]
):
    from tests.fuzz import TARGETS


def main() -> None:
    target = TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
