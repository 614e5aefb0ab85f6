"""Settings files, precedence, and errors in plain words."""

from __future__ import annotations

import re
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest

from adios_tme.config.base import Config
from adios_tme.config.commands.export import ExportConfig
from adios_tme.config.commands.viz import VizCurvesConfig
from adios_tme.config.data import DataRoot, IndexConfig, PatchSelection
from adios_tme.config.load import (
    build,
    leaves,
    merge,
    nest,
    read_yaml,
    with_whole_paths,
    write_yaml,
)
from adios_tme.config.slides import SlideTiling
from adios_tme.config.train import DEMO, TrainConfig
from adios_tme.errors import ConfigError


def config(**flags: Any) -> TrainConfig:
    return build(TrainConfig, nest(TrainConfig, {"data_path": "patches", **flags}))


def test_every_setting_has_help_and_a_name_of_its_own() -> None:
    found = list(leaves(TrainConfig))
    names = [leaf.path[-1] for leaf in found]
    assert len(names) == len(set(names))
    assert [leaf.path for leaf in found if not leaf.field.description] == []


def test_later_layers_win_and_sections_merge() -> None:
    merged = merge({"a": {"x": 1, "y": 1}, "b": 1}, {"a": {"y": 2}}, {"b": 3})
    assert merged == {"a": {"x": 1, "y": 2}, "b": 3}


def test_sizes_follow_the_architecture_unless_given() -> None:
    assert config(arch="vit_small").model.num_heads == 6
    large = config(arch="vit_large", depth=3).model
    assert (large.embed_dim, large.depth, large.num_heads) == (1024, 3, 16)


@pytest.mark.parametrize(
    ("total", "warmup"), [(300_000, 10_000), (100_000, 10_000), (99_990, 9_999), (20, 2), (1, 0)]
)
def test_warmup_is_a_tenth_of_a_short_run(total: int, warmup: int) -> None:
    assert config(total_iterations=total).optim.warmup_iterations == warmup


def test_a_written_tree_reads_back_the_same(tmp_path: Path) -> None:
    original = build(TrainConfig, DEMO, {"demo": False, "data": {"data_path": "x"}})
    write_yaml(original, tmp_path / "config.yaml")
    assert build(TrainConfig, read_yaml(tmp_path / "config.yaml", TrainConfig)) == original


def test_a_file_may_name_settings_without_their_section(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("lr: 0.001\nmask:\n  num_masks: 4\ndata_path: patches\n")
    read = build(TrainConfig, read_yaml(path, TrainConfig))
    assert (read.optim.lr, read.mask.num_masks) == (0.001, 4)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            {"num_heads": 10, "embed_dim": 768},
            "model: num_heads=10 does not divide embed_dim=768. "
            "Use --num-heads 8 or 12, or change --embed-dim.",
        ),
        (
            {"img_size": 100},
            "patch_size=16 does not divide img_size=100. "
            "Use --img-size 96, or change --patch-size.",
        ),
        (
            {"crop_size": 90},
            "patch_size=16 does not divide crop_size=90. "
            "Use --crop-size 96, or change --patch-size.",
        ),
        ({"batch_size_per_gpu": 0}, "data.batch_size_per_gpu: expected at least 1, got 0."),
        (
            {"arch": "vit_huge"},
            "model.arch: expected one of 'vit_tiny', 'vit_small', 'vit_base', 'vit_large' or "
            "timm:NAME, got 'vit_huge'.",
        ),
        ({"lr": "fast"}, "optim.lr: expected a number, got 'fast'."),
        (
            {"use_lars": True},
            "optim: use_lars=True does not go with optimizer_type=adamw. "
            "Use --optimizer-type sgd, or drop --use-lars.",
        ),
        (
            {"lars_eta": 0.1, "optimizer_type": "sgd"},
            "optim: lars_eta=0.1 would be ignored: use_lars=False. Add --use-lars, or drop it.",
        ),
        (
            {"momentum": 0.5},
            "optim: momentum=0.5 would be ignored: optimizer_type=adamw. "
            "Use --optimizer-type sgd, or drop it.",
        ),
        (
            {"warmup_iterations": 20, "total_iterations": 20},
            "optim: warmup_iterations=20 is not shorter than total_iterations=20. "
            "Lower --warmup-iterations.",
        ),
        (
            {"min_lr": 1.0},
            "optim: min_lr=1.0 is above lr=5e-05. Lower --min-lr, or raise --lr.",
        ),
        (
            {"mask_model_type": "adios", "mask_dropout": 0.5},
            "mask: mask_dropout=0.5 would be ignored: mask_model_type=adios has no ViT encoder. "
            "Drop it, or use --mask-model-type vit_unet.",
        ),
        (
            {"crops_per_mask": 0, "crop_size": 96},
            "mask: crop_size=96 would be ignored: crops_per_mask=0. "
            "Drop it, or use --crops-per-mask 1.",
        ),
        (
            {"mask_source": "none", "fill": "blur"},
            "mask: fill=blur would be ignored: mask_source=none hides nothing. "
            "Drop it, or use --mask-source learned.",
        ),
        (
            {"area_targets": (0.2, 0.4, 0.5)},
            "loss.area_targets: 0.2 0.4 0.5 add up to 1.1, and masks to 1 at every pixel. "
            "Give shares that add up to 1.",
        ),
        (
            {"area_targets": (0.0, 0.4, 0.6)},
            "loss.area_targets: 0.0 0.4 0.6 are no shares of an image. "
            "Give numbers between 0 and 1.",
        ),
        (
            {"area_targets": (0.4, 0.6)},
            "area_targets: 2 targets for num_masks=3. "
            "Give one for each mask, or change --num-masks.",
        ),
        (
            {"area_targets": (0.2, 0.3, 0.5), "sparsity_penalty_type": "sinh_squared"},
            "loss: sparsity_penalty_type=sinh_squared would be ignored: area_targets take its "
            "place. Give one of them.",
        ),
        (
            {"area_over": "batch", "alpha_sparsity": 0},
            "loss: area_over would be ignored: alpha_sparsity=0 leaves areas free. "
            "Drop it, or raise --alpha-sparsity.",
        ),
        (
            {"stain_until": 0.3},
            "loss: stain_until=0.3 would be ignored: stain_weight=0 has no prior. "
            "Drop it, or give --stain-weight 10.",
        ),
        (
            {"stain_weight": 1.0, "stain_until": 0.5, "train_mask_until": 0.5},
            "stain_until=0.5 would be ignored: train_mask_until=0.5 freezes the mask model by "
            "then. Drop it, or give less than 0.5.",
        ),
        (
            {"edge_weight": 1.0, "mask_source": "random"},
            "edge_weight would be ignored: mask_source=random trains no mask model. "
            "Drop it, or use --mask-source learned.",
        ),
        (
            {"all": True, "pattern": "x"},
            "data.patches: all and pattern exclude each other. Give one of them.",
        ),
        (
            {"data_path": None},
            "data_path is missing. Give --data-path FOLDER, or --demo for generated tissue.",
        ),
    ],
)
def test_a_rule_that_is_broken_says_what_where_and_what_to_do(
    flags: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        config(**flags)
    assert str(caught.value) == message
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("command", "flags", "message"),
    [
        (
            IndexConfig,
            {"data_path": "patches", "num_samples": 5},
            "num_samples=5 would be ignored: stats is not given. Add --stats, or drop it.",
        ),
        (
            IndexConfig,
            {"data_path": "patches", "num_drawn": 5, "stats": True},
            "num_drawn=5 would be ignored: contact_sheet is not given. "
            "Add --contact-sheet, or drop it.",
        ),
        (
            ExportConfig,
            {"run": "run", "out": "teacher.pth", "format": "dinov2", "licence": "mit"},
            "licence=mit would be ignored: format=dinov2 has no model card. "
            "Drop it, or use --format timm.",
        ),
    ],
)
def test_a_setting_of_a_command_that_nothing_reads_is_refused(
    command: type[Config], flags: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        build(command, flags)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optim:\n  momentun: 1", "optim.momentun: unknown setting. Did you mean optim.momentum?"),
        ("epochs: 3", "epochs: unknown setting. Did you mean optim.total_iterations?"),
        ("total_iteration: 1", "Did you mean optim.total_iterations?"),
        ("run:\n  lr: 1", "run.lr: unknown setting. Did you mean optim.lr?"),
        ("zzzz: 1", "zzzz: unknown setting. Run the command with --help for the list."),
        ("- 1", "expected settings as `name: value` lines."),
        ("a: [", "is not YAML."),
    ],
)
def test_a_mistake_in_a_file_names_the_nearest_setting(
    text: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        build(TrainConfig, DEMO, read_yaml(path, TrainConfig), source=str(path))
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("nproc_per_node: 4", "launch.nproc_per_node", "4"),
        ("nnodes: 1:4", "launch.nnodes", "1:4"),
        ("slurm: true\ntime: 12:00:00", "cluster.time", "12:00:00"),
        ("compile: off", "compute.compile", "off"),
        ("lr: 1e-3", "optim.lr", 1e-3),
        ("total_iterations: 20_000", "optim.total_iterations", 20_000),
        ("eval_labels: null", "watch.eval_labels", None),
        ("use_lars: False", "optim.use_lars", False),
        ("mean: [.5, 0.25, +1]", "data.mean", (0.5, 0.25, 1.0)),
    ],
)
def test_a_file_says_what_it_seems_to_say(
    text: str, name: str, value: object, tmp_path: Path
) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(f"data_path: patches\n{text}\n")
    read = build(TrainConfig, read_yaml(path, TrainConfig))
    section, leaf = name.split(".")
    assert getattr(getattr(read, section), leaf) == value


@pytest.mark.parametrize("flags", [{"data_path": ["a"]}, {"slurm": True}])
def test_the_demo_ignores_nothing(flags: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(flags))} would be ignored"):
        build(TrainConfig, nest(TrainConfig, {"demo": True} | flags))


def test_two_mistakes_give_two_lines() -> None:
    with pytest.raises(ConfigError) as caught:
        config(lr=-1, num_masks=1)
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("text", "name", "lines"),
    [
        ("lr: 0.1\nmin_lr: 0.0\nlr: 0.2\n", "lr", "1 and 3"),
        ("optim:\n  lr: 0.1\nlr: 0.2\n", "lr", "2 and 3"),
        ("lr: 0.2\noptim:\n  lr: 0.1\n", "lr", "1 and 3"),
        ("optim:\n  lr: 0.1\n  'lr': 0.2\n", "lr", "2 and 3"),
        ("optim: {lr: 0.1}\nmodel: {}\noptim: {min_lr: 0}\n", "optim", "1 and 3"),
        ("data:\n  patches:\n    all: true\nall: false\n", "all", "3 and 4"),
    ],
)
def test_a_setting_that_is_given_twice_is_named_with_both_lines(
    text: str, name: str, lines: str, tmp_path: Path
) -> None:
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_yaml(tmp_path / "run.yaml", TrainConfig)
    message = f"run.yaml: {name} is given twice, in lines {lines}. Keep one."
    assert str(caught.value).endswith(message)


def test_aliases_and_merges_are_no_repetition(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("optim: &o\n  lr: 0.1\ndata_path: &p a\noutput_dir: *p\n")
    assert read_yaml(path, TrainConfig)["optim"] == {"lr": 0.1}
    path.write_text("optim: &o {lr: 0.1}\nmodel: {<<: *o, depth: 3}\n")
    assert read_yaml(path, TrainConfig)["model"] == {"lr": 0.1, "depth": 3}
    path.write_text("optim: &o\n  lr: *o\n")
    assert set(read_yaml(path, TrainConfig)) == {"optim"}


def test_home_is_known_in_every_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "run.yaml").write_text(
        "data_path: [~/a, ~/b:0.5]\noutput_dir: ~/run\nresume: ~/old\ninit_from: ~/w\n"
        "eval_labels: ~/labels\nmask_encoder_checkpoint: ~/m.pth\n"
    )
    read = build(TrainConfig, read_yaml(Path("~/run.yaml"), TrainConfig))
    assert [root.path for root in read.data.roots] == [tmp_path / "a", tmp_path / "b"]
    assert read.data.roots[1].weight == 0.5
    assert (read.run.output_dir, read.watch.eval_labels) == (tmp_path / "run", tmp_path / "labels")
    assert (read.run.resume, read.run.init_from) == (f"{tmp_path}/old", f"{tmp_path}/w")
    assert read.mask.mask_encoder_checkpoint == tmp_path / "m.pth"
    assert build(VizCurvesConfig, {"runs": ["~/one", "two"]}).runs == (
        tmp_path / "one",
        Path("two"),
    )


@pytest.mark.parametrize("path", ["~no_such_user_here/x", "a/~/x", "/a/~"])
def test_a_tilde_that_is_no_home_stays(path: str) -> None:
    assert config(output_dir=path).run.output_dir == Path(path)
    assert config(init_from="timm:vit_tiny").run.init_from == "timm:vit_tiny"


def test_a_path_with_a_colon(tmp_path: Path) -> None:
    for name in ("run", "run:2", "scan_2024-05-01T12:30"):
        (tmp_path / name).mkdir()
    expected = {
        "run": ("run", 1),
        "run:0.5": ("run", 0.5),
        "run:2": ("run:2", 1),
        "run:2:0.5": ("run:2", 0.5),
        "scan_2024-05-01T12:30": ("scan_2024-05-01T12:30", 1),
        "gone:x": ("gone:x", 1),
        "gone:3": ("gone", 3),
    }
    for text, (name, weight) in expected.items():
        assert DataRoot.parse(str(tmp_path / text)) == (tmp_path / name, weight)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(?P<slide>", "is not a regular expression"),
        (r"\d+", "has no named group. Name groups out of slide, x, y, size, mpp"),
        ("(?P<slide>.)(?P<level>.)", "has the group level. Name groups out of"),
        ("(?P<x>.)", "has x or y alone"),
    ],
)
def test_a_pattern_of_names_is_checked(pattern: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(name_pattern=pattern)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: PatchSelection(patch_size_px="x"), "patch_size_px: expected a whole number, got"),
        (lambda: PatchSelection(all=True, pattern="x"), "all and pattern exclude each other"),
        (lambda: SlideTiling(mpp=-1), "mpp: expected at least 0.05, got -1"),
        (lambda: TrainConfig(mean=0.5), "data.mean: expected several values, got 0.5"),
        (lambda: TrainConfig(optim={"lr": "x"}, data={"mean": "y"}), "optim.lr: expected a number"),
    ],
)
def test_settings_made_in_python_are_refused_in_our_words(
    make: Callable[[], Config], text: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(text)) as told:
        make()
    assert "pydantic" not in str(told.value)


def test_settings_do_not_change() -> None:
    config, name = PatchSelection(), "all"
    with pytest.raises(AttributeError, match=r"PatchSelection\.all is fixed"):
        setattr(config, name, True)


PATHS = {
    "data_path": ("patches", "more:0.3", "/whole"),
    "mpp_csv": "scales.csv",
    "tissue": "regions",
    "mask_encoder_checkpoint": "old/checkpoint.pth",
    "output_dir": "run",
    "resume": "earlier",
    "init_from": "encoder",
    "eval_labels": "labels",
}


def test_paths_are_whole_for_a_process_in_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sizes = {"mask_model_type": "vit_unet", "patch_size": 16}
    whole = with_whole_paths(config(**PATHS | sizes, mpp=0.5))
    assert whole.data.data_path == (f"{tmp_path}/patches", f"{tmp_path}/more:0.3", "/whole")
    found = {
        leaf.path[-1]: attrgetter(".".join(leaf.path))(whole)
        for leaf in leaves(TrainConfig)
        if leaf.path[-1] in PATHS.keys() - {"data_path"}
    }
    expected = {name: tmp_path / str(PATHS[name]) for name in found}
    assert {name: Path(path) for name, path in found.items()} == expected
    assert with_whole_paths(whole) == whole
    of_timm = with_whole_paths(config(data_path="patches", init_from="timm:local-dir:encoder"))
    assert of_timm.run.init_from == f"timm:local-dir:{tmp_path}/encoder"
    named = with_whole_paths(config(data_path="patches", init_from="timm:vit_tiny_patch16_224"))
    assert named.run.init_from == "timm:vit_tiny_patch16_224"


def test_words_are_no_paths() -> None:
    given = config(output_dir="/run", data_path="/patches", init_from="timm:vit_tiny_patch16_224")
    assert with_whole_paths(given) == given


def test_every_path_among_the_settings_is_made_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new setting of type Path is one by its type; this knows those that are texts."""
    monkeypatch.chdir(tmp_path)
    coordinates = config(mpp=0.5, coordinates="tiles").data.slides
    assert with_whole_paths(coordinates).coordinates == tmp_path / "tiles"
    of_type = {
        leaf.path[-1] for leaf in leaves(TrainConfig) if "Path" in str(leaf.field.annotation)
    }
    texts = {"data_path", "tissue", "resume", "init_from"}
    assert of_type | texts == PATHS.keys() | {"coordinates"}
