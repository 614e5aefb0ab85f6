"""Probes of a run: what is known beforehand, what is done again, and what is refused."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from adios_tme.benchmark.probe import classifiers
from adios_tme.benchmark.probe.report import notes, results_tables, summary, write_report
from adios_tme.benchmark.probe.results import COLOUR, GIVEN, RANDOM, RESULTS_NAME, Results
from adios_tme.benchmark.probe.run import probe_run
from adios_tme.config.commands.probe import ProbeConfig
from adios_tme.distributed.world import World
from adios_tme.errors import CheckpointError, ConfigError, DataError
from adios_tme.export.timm import ExportedEncoder, write_timm
from adios_tme.models.vit import VisionTransformer
from adios_tme.pretrained import load_encoder_for_scoring, untrained_encoder
from adios_tme.run_folder.checkpoints import read_checkpoint, write_checkpoint
from adios_tme.training.state import Run
from tests.factories import tiny_config

CPU = World(0, 1, 0, 1, torch.device("cpu"))


def make_classes(
    folder: Path, *, num_slides: int = 8, num_each: int = 3, by_colour: bool = True, seed: int = 0
) -> Path:
    """Two classes on the same slides; told apart by their colour, or by nothing."""
    rng = np.random.default_rng(seed)
    for name, colour in (("pale", (230, 200, 225)), ("stained", (120, 70, 150))):
        (folder / name).mkdir(parents=True)
        for number in range(num_slides * num_each):
            base = np.array(colour if by_colour else (180, 130, 190))
            pixels = (base + rng.normal(scale=12, size=(16, 16, 3))).clip(0, 255).astype(np.uint8)
            slide = f"slide_{number % num_slides:02d}_{number}_x{number}_y0.png"
            Image.fromarray(pixels).save(folder / name / slide)
    return folder


@pytest.fixture(autouse=True)
def _few_penalties(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most of the time goes into fits for the choice of C, which has tests of its own."""
    monkeypatch.setattr(classifiers, "STRENGTHS", (1e-2, 1.0))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two checkpoints, of no use as an encoder."""
    folder = tmp_path_factory.mktemp("trained")
    run = Run.build(tiny_config(folder, folder), CPU)
    (folder / "run").mkdir()
    for _ in range(2):
        run.advance()
        write_checkpoint(run.state(), folder / "run")
    return folder / "run"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "run")


def probe(run: Path | None, *train: Path, output: Path, **settings: Any) -> tuple[Results, int]:
    """Results, and how many images were embedded for them."""
    steps: list[tuple[int, int]] = []
    config = ProbeConfig(run=run, train=train, output=output, num_workers=1, **settings)
    results = probe_run(config, on_progress=lambda done, total: steps.append((done, total)))
    assert not steps or steps == [(done, len(steps)) for done in range(1, len(steps) + 1)]
    return results, len(steps)


def test_colour_statistics_tell_colours_apart(trained: Path, tmp_path: Path) -> None:
    results, _ = probe(trained, make_classes(tmp_path / "set"), output=tmp_path / "out")
    (found,) = results.sets
    assert set(found.rivals) == {RANDOM, COLOUR}
    for classifier in ("knn", "logistic"):
        scores = getattr(found.rivals[COLOUR].scores, classifier)
        assert [scores.balanced_accuracy.value, scores.auroc.value] == [1, 1]
    protocol = found.protocol
    assert protocol["split_by"] == "slide"
    assert (protocol["num_train_slides"], protocol["num_test_slides"]) == (6, 2)
    assert (protocol["num_train"], protocol["num_test"]) == ([18, 18], [6, 6])
    assert [difference.rival for difference in found.differences] == [COLOUR, COLOUR]


def test_classes_that_nothing_tells_apart_are_at_chance(trained: Path, tmp_path: Path) -> None:
    folder = make_classes(tmp_path / "set", by_colour=False, num_slides=24)
    newest = trained / "checkpoint_iter_00000002.pth"
    results, _ = probe(newest, folder, output=tmp_path / "out", test_fraction=0.5)
    (found,) = results.sets
    methods = [each.scores for each in found.checkpoints]
    methods += [each.scores for each in found.rivals.values()]
    assert len(methods) == 3
    for scores in methods:
        for classifier in (scores.knn, scores.logistic):
            for reached in (classifier.balanced_accuracy, classifier.auroc):
                assert reached.low <= 0.5 <= reached.high
    assert "over the 12 slides of the test part" in found.notes[-1]
    assert all(each.difference.low < 0 < each.difference.high for each in found.differences)


def test_what_was_probed_is_not_embedded_again(run: Path, tmp_path: Path) -> None:
    first_set = make_classes(tmp_path / "one")
    first, num_images = probe(run, first_set, output=tmp_path / "out")
    assert num_images == 48 * 4  # two checkpoints, two rivals
    assert json.loads((tmp_path / "out" / RESULTS_NAME).read_text()) == json.loads(
        json.dumps(first.as_json())
    )
    assert probe(run, first_set, output=tmp_path / "out") == (first, 0)
    other = make_classes(tmp_path / "other", num_slides=4)
    both, num_images = probe(run, first_set, other, output=tmp_path / "out")
    assert num_images == 24 * 4
    assert both.sets[0] == first.sets[0]
    state = read_checkpoint(run / "checkpoint_iter_00000002.pth")
    state["student"] = {name: weight * 2 for name, weight in state["student"].items()}
    write_checkpoint(state, run)
    changed, num_images = probe(run, first_set, other, output=tmp_path / "out")
    assert num_images == 48 + 24
    assert changed.sets[0].checkpoints[0] == first.sets[0].checkpoints[0]
    assert changed.sets[0].rivals == first.sets[0].rivals


def test_a_rival_is_embedded_once_for_its_weights(run: Path, tmp_path: Path) -> None:
    folder = make_classes(tmp_path / "set", num_slides=4)
    rival = f"timm:local-dir:{tmp_path / 'timm'}"
    given: dict[str, Any] = {"output": tmp_path / "out", "rival": (rival,)}
    probe(run, folder, output=tmp_path / "out")
    scores = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        encoder = VisionTransformer(16, 8, 64, 1, 1).eval()
        write_timm(ExportedEncoder(encoder, (0.5,) * 3, (0.2,) * 3), tmp_path / "timm")
        results, num_images = probe(run, folder, **given)
        assert num_images == 24
        assert probe(run, folder, **given) == (results, 0)
        scores.append(results.sets[0].rivals[rival])
    assert scores[0].sha256 != scores[1].sha256
    assert list(results.sets[0].rivals) == [RANDOM, COLOUR, rival]
    assert [each.rival for each in results.sets[0].differences[:2]] == [COLOUR, rival]


@pytest.mark.parametrize("change", [{"k": 3}, {"seed": 1}, {"pool": "mean"}, "image"])
def test_another_protocol_is_probed_again(change: Any, run: Path, tmp_path: Path) -> None:
    folder = make_classes(tmp_path / "set", num_slides=4)
    probe(run, folder, output=tmp_path / "out")
    settings = {} if change == "image" else change
    if change == "image":
        Image.new("RGB", (16, 16)).save(next((folder / "pale").iterdir()))
    assert probe(run, folder, output=tmp_path / "out", **settings)[1] == 24 * 4


def test_scores_of_others_are_kept(run: Path, tmp_path: Path) -> None:
    folder, other = make_classes(tmp_path / "set"), make_classes(tmp_path / "other")
    probe(run, folder, output=tmp_path / "out")
    before = (tmp_path / "out" / RESULTS_NAME).read_bytes()
    for some_run, some_set, text in (
        (run, other, r"holds scores of .*run on .*set, which is not asked for now\. Give"),
        (shutil.copytree(run, tmp_path / "r"), folder, r"holds scores of .*run\. Give another"),
    ):
        with pytest.raises(DataError, match=text):
            probe(some_run, some_set, output=tmp_path / "out")
    (tmp_path / "out" / RESULTS_NAME).write_text('{"run": "x"}')
    with pytest.raises(DataError, match=r"probe\.json: is not a result of this benchmark"):
        probe(run, folder, output=tmp_path / "out")
    (tmp_path / "out" / RESULTS_NAME).write_bytes(before)
    assert probe(run, folder, output=tmp_path / "out")[1] == 0


def test_two_folders_are_two_parts(trained: Path, tmp_path: Path) -> None:
    train, test = make_classes(tmp_path / "train"), make_classes(tmp_path / "test", num_slides=2)
    results, _ = probe(trained, train, output=tmp_path / "out", test=(test,))
    (found,) = results.sets
    assert (found.protocol["num_train"], found.protocol["num_test"]) == ([24, 24], [6, 6])
    assert found.notes[0].startswith("Slides stand in both parts (2, such as slide_00)")
    assert len(found.test_images) == len(found.truth.split()) == 12


def test_the_random_encoder_has_the_shape_and_a_seed(trained: Path) -> None:
    path = trained / "checkpoint_iter_00000001.pth"
    torch.manual_seed(7)
    encoders = [untrained_encoder(path, seed) for seed in (0, 0, 1)]
    state = torch.random.get_rng_state()
    torch.manual_seed(7)
    assert torch.equal(state, torch.random.get_rng_state())
    weights = [each.encoder.state_dict() for each in encoders]
    own = load_encoder_for_scoring(path)
    assert {name: weight.shape for name, weight in weights[0].items()} == {
        name: weight.shape for name, weight in own.encoder.state_dict().items()
    }
    assert encoders[0][2:] == own[2:]
    same, other = (torch.equal(weights[0]["pos_embed"], each["pos_embed"]) for each in weights[1:])
    assert (same, other) == (True, False)
    assert not encoders[0].encoder.training


def test_a_checkpoint_of_another_shape_is_named(run: Path, tmp_path: Path) -> None:
    other = Run.build(tiny_config(tmp_path, tmp_path, embed_dim=64), CPU)
    other.iteration = 9
    path = write_checkpoint(other.state(), run)
    with pytest.raises(CheckpointError) as raised:
        probe(run, make_classes(tmp_path / "set", num_slides=4), output=tmp_path / "out")
    assert str(raised.value) == (
        f"{path}: its encoder is not that of the first checkpoint: embed_dim is 64, there 32. "
        f"Move it to the folder of its own run."
    )
    kept = json.loads((tmp_path / "out" / RESULTS_NAME).read_text())
    assert [each["iteration"] for each in kept["sets"][0]["checkpoints"]] == [1, 2]


def test_weights_that_do_not_fit_their_settings_are_named(run: Path, tmp_path: Path) -> None:
    path = run / "checkpoint_iter_00000001.pth"
    state = read_checkpoint(path)
    state["student"]["encoder.pos_embed"] = torch.zeros(1, 4, 32)
    write_checkpoint(state, run)
    with pytest.raises(CheckpointError, match=rf"{path}: its weights do not fit the Student of"):
        load_encoder_for_scoring(path)


def test_a_run_without_checkpoints_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere: does not exist\. Give a checkpoint file"):
        probe(tmp_path / "nowhere", make_classes(tmp_path / "set"), output=tmp_path / "out")


def test_a_run_with_its_newest_checkpoint_alone_says_how_to_give_it(
    trained: Path, tmp_path: Path
) -> None:
    newest = tmp_path / "copied" / "checkpoint.pth"
    newest.parent.mkdir()
    shutil.copy(next(trained.glob("checkpoint_iter_*.pth")), newest)
    classes, out = make_classes(tmp_path / "set"), tmp_path / "out"
    with pytest.raises(CheckpointError, match=rf"Give its one checkpoint: {newest}\.$"):
        probe(newest.parent, classes, output=out)
    results, _ = probe(newest, classes, output=out)
    assert len(results.sets[0].checkpoints) == 1


def write_features(folder: Path) -> Path:
    """Six slides with features that tell two classes apart, and labels beside them."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    lines = ["slide,x,y,label"]
    for number in range(6):
        labels = rng.permutation([0, 1] * 4)
        with h5py.File(folder / f"s{number}.h5", "w") as file:
            file["features"] = labels[:, None] + rng.normal(scale=0.05, size=(8, 5))
            file["coords"] = np.stack([np.arange(8), np.zeros(8, int)], axis=1)
        lines += [f"s{number},{row},0,{'ab'[label]}" for row, label in enumerate(labels)]
    (folder.parent / "labels.csv").write_text("\n".join(lines))
    return folder


def test_features_from_files_need_no_run(tmp_path: Path) -> None:
    folder = write_features(tmp_path / "features")
    results, num_images = probe(
        None, folder, output=tmp_path / "out", labels=tmp_path / "labels.csv"
    )
    assert num_images == 0
    (found,) = results.sets
    assert found.rivals[GIVEN].scores.logistic.balanced_accuracy.value == 1
    assert found.rivals[GIVEN].scores.knn.auroc.value > 0.9
    assert (found.protocol["split_by"], found.protocol["num_test_slides"]) == ("slide", 2)
    assert [line for line in summary(results) if "logistic" in line] == [
        "features: logistic regression on given features reaches a balanced accuracy of "
        "1.000 [1.00, 1.00]; chance is 0.500."
    ]
    write_report(results, tmp_path / "out")
    again, _ = probe(None, folder, output=tmp_path / "out", labels=tmp_path / "labels.csv")
    assert again == results


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"train": "features"}, "features: holds HDF5 features, and their labels are not given"),
        ({"train": "set"}, "set: holds no HDF5 features, and no run is given to embed"),
        (
            {"train": "features", "labels": 1, "run": 1},
            r"run=\S+ would be ignored: no --train is a f",
        ),
        (
            {"train": "set", "labels": 1, "run": 1},
            r"labels=\S+ would be ignored: no --train is a f",
        ),
        ({"train": "features", "labels": 1, "slide_pattern": "x"}, "slide_pattern=x would be ign"),
        ({"train": "features", "labels": 1, "test": "set", "run": 1}, "one holds features, the o"),
    ],
)
def test_settings_that_do_not_fit_the_sets_are_named(
    given: dict[str, Any], text: str, trained: Path, tmp_path: Path
) -> None:
    write_features(tmp_path / "features")
    make_classes(tmp_path / "set")
    known = {"run": trained, "labels": tmp_path / "labels.csv"}
    settings = {name: known.get(name, value) for name, value in given.items()}
    for name in settings.keys() & {"train", "test"}:
        settings[name] = (tmp_path / settings[name],)
    with pytest.raises(ConfigError, match=text):
        probe_run(ProbeConfig(**settings, output=tmp_path / "out"))


def test_the_report_has_a_line_for_every_method(trained: Path, tmp_path: Path) -> None:
    sets = [make_classes(tmp_path / part / "set", num_slides=6) for part in "ab"]
    results, _ = probe(trained, *sets, output=tmp_path / "out")
    write_report(results, tmp_path / "out")
    with (tmp_path / "out" / "probe.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["method"], row["iteration"], row["classifier"]) for row in rows[:4]] == [
        ("encoder", iteration, classifier)
        for iteration in ("1", "2")
        for classifier in ("knn", "logistic")
    ]
    assert len(rows) == 2 * 4 * 2
    assert {row["set"] for row in rows} == set(map(str, sets))  # both folders have one name
    first = results.sets[0].checkpoints[0].scores.knn.balanced_accuracy
    assert float(rows[0]["balanced_accuracy_low"]) == first.low
    assert [len(shown.rows) for shown in results_tables(results)] == [4] * 4
    sentences = summary(results)
    assert len(sentences) == 4
    assert (
        "colour statistics (the stronger of the two that need no training) 1.000." in sentences[0]
    )
    assert sum("Intervals: over the" in note for note in notes(results)) == 2
    for suffix in ("png", "svg"):
        assert (tmp_path / "out" / f"probe.{suffix}").stat().st_size > 5000
