"""The worked examples in the docstrings of the public interface, run as they stand there."""

from __future__ import annotations

import doctest
import inspect
import operator
import re
from pathlib import Path
from typing import Any

import pytest

import adios_tme
from adios_tme import build_index, errors, load_mask_model
from tests.factories import make_dataset, tiny_settings, untrained_run

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "api.md").read_text()
#: What the page of the Python interface shows of classes, as `Class.method`.
METHODS = [
    f"{owner}.{method}"
    for owner, methods in re.findall(r"autoclass:: (\w+)(?:\(.*\))?\n +:members: (.+)", PAGE)
    for method in methods.split(", ")
]
#: The errors have one example together, in the docstring of their module.
PUBLIC: dict[str, Any] = {
    name: operator.attrgetter(name)(adios_tme)
    for name in [*adios_tme.__all__, *METHODS]
    if name != "__version__"
} | {"errors": errors}


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the examples find there; the page of the Python interface says so."""
    place = tmp_path_factory.mktemp("examples")
    patches = make_dataset(place / "patches", num_archives=2)
    build_index(patches)
    run = untrained_run(place / "run")
    exported = place / "exported"
    load_mask_model(run).save_pretrained(exported)
    tiny = tiny_settings(patches, run, total_iterations=2)
    sizes = {name: value for name, value in tiny.items() if name not in ("data_path", "output_dir")}
    return {"patches": patches, "run": run, "exported": exported, "tiny": sizes}


@pytest.mark.parametrize("name", PUBLIC)
def test_example_runs(
    name: str, given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = inspect.getdoc(PUBLIC[name]) or ""
    example = doctest.DocTestParser().get_doctest(text, dict(given), name, name, 0)
    assert example.examples, f"{name} has no worked example in its docstring"
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    doctest.DocTestRunner(verbose=False).run(example, out=said.append)
    assert said == [], "".join(said)


def test_examples_find_what_the_page_says(given: dict[str, Any]) -> None:
    assert re.findall(r"^- `(\w+)`", PAGE, re.MULTILINE) == list(given)


def test_no_example_is_left_out() -> None:
    modules = (ROOT / "adios_tme").rglob("*.py")
    assert sum(module.read_text().count("Example:\n") for module in modules) == len(PUBLIC)
