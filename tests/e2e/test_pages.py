"""All that is fenced in the documents is run as it stands there, or is of a stated kind."""

from __future__ import annotations

import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from adios_tme.config.load import build, nest, read_yaml
from adios_tme.config.train import TrainConfig
from tests.documents import BLOCKS, DOCUMENTS, ROOT, Block, blocks, name_of
from tests.factories import as_flags, run_main, tiny_settings
from tests.stand_ins import MAKERS, StandIns

#: Blocks that are no code: what is printed or lies in a folder, and what Sphinx puts into the page.
SHOWN = r"text|\{(eval-rst|image|include|literalinclude|toctree)\}"

#: Commands that are not run, by why.
NOT_RUN = {
    "installs packages": r"(pip|nox|git|cd|python -m venv|\.) .*",
    "needs several machines": r"sbatch .*|adios-tme .* --(nnodes|slurm)\b.*",
    "starts several processes, as tests that are marked elastic do": r".* --nproc-per-node \d+",
    "needs a network; test_push.py has a hub of its own": r".* --push .*",
    "says how the machine is; test_doctor.py has its checks": r"adios-tme doctor",
    "takes long; test_measure.py runs it on a tiny network": r"adios-tme benchmark throughput .*",
    "takes long; test_against_onnxruntime.py writes it": r".* --what encoder --format onnx",
    "is run with other scales on docs/benchmark.md": r"adios-tme benchmark nuclei tissue_run .*",
    "takes minutes; test_commands.py runs it with less tissue": r"adios-tme train --demo",
    "takes an hour": r"python docs/(benchmarks/stability|studies/study)\.py .*",
}
#: Of our command, which test_documents.py parses all the same.
NUM_NOT_RUN = 17

#: Tests that see to the code of pages themselves, to look at what comes out: pages, what of them.
ELSEWHERE = {
    "test_embed.py::test_the_page_on_features_does_what_it_says": (
        r"docs/features\.md",
        r"python|adios-tme embed (?!.*--(nproc|nnodes|slurm)).*",
    ),
    "test_probe.py::test_the_page_is_true": (r"docs/probe\.md", r"python|adios-tme .*"),
    "test_exports_page.py::test_every_section_with_code_is_run": (
        r"docs/exports/(dinov2|masked_views|masks|timm)\.md",
        r"python",
    ),
    # Of packages that the tests do not have; test_against_downstream_tools.py runs it with them.
    "test_exports_page.py::test_page_has_the_code_of_model_cards": (
        r"docs/exports/(eva|lazyslide|trident)\.md",
        r"python|bash",
    ),
    "test_export.py::test_an_onnx_file_runs_as_the_page_says": (
        r"docs/exports/onnx\.md",
        r"python|adios-tme export run mask\.onnx .*",
    ),
}

#: Of our ViT; networks of timm have their own.
SIZES = ("patch_size", "embed_dim", "depth", "num_heads")
TINY = {
    name: value
    for name, value in tiny_settings(Path(), Path(), total_iterations=2).items()
    if name not in ("data_path", "output_dir")
}
#: What is added to commands for them to take a second, by patterns of how they begin.
ADDED = {
    "adios-tme train": [
        *as_flags({name: value for name, value in TINY.items() if name not in SIZES}),
        "--overwrite",
    ],
    "adios-tme train (?!.*timm:)": as_flags({name: TINY[name] for name in SIZES}),
    "adios-tme segment": ["--channel", "1", "--threshold", "0.34"],  # an untrained mask shows none
    "adios-tme segment run slides": ["--mpp", "4"],
    "adios-tme benchmark data": as_flags({"num-samples": 4, "num-rounds": 1, "num-workers": 1}),
    "adios-tme benchmark data ../shared/data/tiles": as_flags({"members": 10}),
    "adios-tme benchmark embed": as_flags({"num-samples": 4, "num-rounds": 1, "num-workers": 1}),
    "adios-tme benchmark segment": as_flags(
        {"mpp": 4, "channel": 1, "threshold": 0.34, "num-rounds": 1}
    ),
    "python docs/benchmarks/large_pannuke.py": ["--images", "4"],
    "python docs/benchmarks/many_nuclei.py": ["--nuclei", "100", "--piece-px", "64"],
}


class Piece(NamedTuple):
    """A command of a console, or all of a block in another language."""

    block: Block
    code: str

    def __str__(self) -> str:
        return f"{self.block.where}: {self.code.splitlines()[0]}"

    @property
    def why_not(self) -> list[str]:
        """Why it is not run here: what it needs, or the test that sees to it."""
        return [why for why, pattern in NOT_RUN.items() if self._is(pattern)] + [
            test
            for test, (page, pattern) in ELSEWHERE.items()
            if re.fullmatch(page, self.block.page) and self._is(pattern)
        ]

    @property
    def is_run(self) -> bool:
        """Whether it is run here."""
        return self._is(r"python|yaml|(adios-tme|python docs/).+") and not self.why_not

    def _is(self, pattern: str) -> bool:
        what = self.code if self.block.language == "console" else self.block.language
        return bool(re.fullmatch(pattern, what))


def pieces(of: list[Block]) -> Iterator[Piece]:
    """What there is to run, in the order of the pages; a measurement that comes again is left."""
    seen = set()
    for block in of:
        if block.language == "console":
            fresh = [code for code in block.commands if code not in seen]
            seen |= {code for code in fresh if code.startswith("adios-tme benchmark")}
            yield from (Piece(block, code) for code in fresh)
        elif not re.fullmatch(SHOWN, block.language):
            yield Piece(block, block.text)


def unaccounted(of: list[Block]) -> list[str]:
    """What is neither run nor of a stated kind."""
    return [str(piece) for piece in pieces(of) if not (piece.is_run or piece.why_not)]


PIECES = list(pieces(BLOCKS))
PAGES = list(dict.fromkeys(piece.block.page for piece in PIECES if piece.is_run))


def test_all_that_is_fenced_is_run_or_of_a_stated_kind() -> None:
    assert unaccounted(BLOCKS) == []


@pytest.mark.parametrize(
    "fenced", ["```console\n$ make\n```", "```bash\nadios-tme train\n```", "```\nx = 1\n```"]
)
def test_another_kind_would_be_noticed(fenced: str) -> None:
    assert len(unaccounted(blocks(fenced, "docs/new.md"))) == 1


def test_every_fence_is_found() -> None:
    for document in DOCUMENTS:
        text, page = document.read_text(), name_of(document)
        fences = re.findall(r"^ *(?:```|~~~)", text, re.M)
        assert len(fences) == 2 * sum(block.page == page for block in BLOCKS), page


def test_every_kind_is_there_and_no_more_commands_than_were_left() -> None:
    reasons = {piece: piece.why_not for piece in PIECES}
    assert {why for each in reasons.values() for why in each} == NOT_RUN.keys() | ELSEWHERE.keys()
    left = [piece for piece, each in reasons.items() if not NOT_RUN.keys().isdisjoint(each)]
    ours = [str(piece) for piece in left if piece.code.startswith("adios-tme")]
    assert len(ours) == NUM_NOT_RUN, ours


@pytest.mark.parametrize("test", ELSEWHERE)
def test_the_tests_that_see_to_pages_are_there(test: str) -> None:
    file, _, name = test.partition("::")
    assert f"def {name}(" in Path(__file__).with_name(file).read_text()


def test_scripts_that_pages_include_are_run() -> None:
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    included = re.findall(
        r"\{literalinclude\} \S*?([\w.]+)$", "".join(p.read_text() for p in DOCUMENTS), re.M
    )
    assert included
    assert [name for name in included if f'"{name}"' not in tests] == []


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> StandIns:
    return StandIns(tmp_path_factory.mktemp("stand_ins"))


@pytest.mark.pages
@pytest.mark.parametrize("page", PAGES)
def test_the_page_runs(
    page: str,
    stand_ins: StandIns,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.setenv("WANDB_MODE", "offline")
    to_run = [piece for piece in PIECES if piece.block.page == page and piece.is_run]
    stand_ins.give(needed(to_run), place, page)
    names: dict[str, Any] = {}
    for piece in to_run:
        if piece.block.language == "python":
            exec(compile(piece.code, str(piece), "exec"), names)
        elif piece.block.language == "yaml":
            read_settings(piece.code)
        else:
            do(piece.code, capsys, monkeypatch)


def needed(to_run: list[Piece]) -> set[str]:
    """Names of stand-ins, but for what the page makes itself."""
    text = " ".join(piece.code for piece in to_run)
    made = re.findall(r"--output-dir (\S+)|adios-tme tile \S+ (\S+)|\.py (?:tiles )?(\S+)", text)
    words = set(re.split(r"[\s\"'()]|:[\d.]+", text))
    return (words & MAKERS.keys()) - {name for names in made for name in names}


def read_settings(text: str) -> None:
    """Read a block as a settings file of a run."""
    Path("settings.yaml").write_text(text)
    given = nest(TrainConfig, TINY | {"data_path": "patches"})
    build(TrainConfig, given, read_yaml(Path("settings.yaml"), TrainConfig))


def do(command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a command to its end, with what is added to it."""
    added = [more for start, more in ADDED.items() if re.match(start, command)]
    program, *words = [*shlex.split(command), *(word for more in added for word in more)]
    if program == "adios-tme":
        run_main(capsys, 0, *words)
    else:
        script, *rest = words
        monkeypatch.setattr("sys.argv", [script, *rest])
        runpy.run_path(str(ROOT / script), run_name="__main__")
