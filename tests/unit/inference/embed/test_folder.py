"""The output folder: whose features it holds, and where the files of slides go."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from adios_tme.config.commands.embed import EmbedConfig
from adios_tme.data.names import NameFacts
from adios_tme.errors import ConfigError, DataError
from adios_tme.inference.embed.folder import IDENTITY, Layout, claim_folder

IDENTITY_OF_A = {"encoder": "a", "digest": "0123456789abcdef", "pool": "cls", "img_size": 224}


def layout(**settings: Any) -> Layout:
    return Layout(EmbedConfig(run="run", data_path=Path("d"), output=Path("out"), **settings), "E")


@pytest.mark.parametrize(
    ("facts", "settings", "path"),
    [
        (NameFacts("s", size=256, magnification=20, overlap=0), {}, "20x_256px_0px_overlap"),
        (
            NameFacts("s", size=256),
            {"target_magnification": 20, "overlap": 8},
            "20x_256px_8px_overlap",
        ),
        (NameFacts("s", size=448), {}, "448px"),
        (NameFacts("s", magnification=2.5), {}, "2.5x"),
        (NameFacts("s"), {}, "."),
    ],
)
def test_folders_tell_what_is_known(facts: NameFacts, settings: dict[str, Any], path: str) -> None:
    place = layout(**settings)
    known = place.known(facts)
    assert place.path("cohort/s.1", known) == Path("out", path, "features_E", "cohort", "s.1.h5")


@pytest.mark.parametrize(
    ("facts", "settings", "expected"),
    [
        (NameFacts("c/s"), {}, {}),
        (NameFacts("c/s", size=448, mpp=0.25), {}, {"patch_size": 448, "mpp": 0.25}),
        (
            NameFacts("c/s", size=256, magnification=20.0, overlap=0),
            {"level0_magnification": 40},
            {
                "patch_size": 256,
                "patch_size_level0": 512,
                "level0_magnification": 40,
                "target_magnification": 20,
                "overlap": 0,
            },
        ),
        (
            NameFacts("c/s", size=448, level0_size=896),
            {},
            {"patch_size": 448, "patch_size_level0": 896},
        ),
    ],
)
def test_what_is_not_known_is_absent(
    facts: NameFacts, settings: dict[str, Any], expected: dict[str, Any]
) -> None:
    place = layout(**settings)
    found = place.attributes(Path("/out/features_E/c/s.h5"), "c/s", place.known(facts))
    always = {"name": "s", "savetodir": "/out/features_E/c", "encoder": "E"}
    assert found == always | expected
    assert [type(value) for value in found.values()] == [
        type((always | expected)[name]) for name in found
    ]


def test_names_and_flags_that_differ_are_refused() -> None:
    with pytest.raises(ConfigError) as found:
        layout(target_magnification=40).known(NameFacts("c/s", magnification=20))
    assert str(found.value) == (
        "target_magnification=40 is not what the names of c/s state (20). "
        "Drop --target-magnification, or rename the patches."
    )


def test_a_folder_is_of_one_encoder_and_one_set_of_settings(tmp_path: Path) -> None:
    claim_folder(tmp_path, IDENTITY_OF_A)
    claim_folder(tmp_path, IDENTITY_OF_A)
    assert json.loads((tmp_path / IDENTITY).read_text()) == IDENTITY_OF_A
    with pytest.raises(ConfigError) as found:
        claim_folder(tmp_path, IDENTITY_OF_A | {"digest": "f" * 64, "encoder": "b"})
    assert str(found.value) == (
        f"{tmp_path}: holds features of another encoder (a, weights 0123456789ab; now b, weights "
        f"ffffffffffff). Give another --output, or remove that folder."
    )
    with pytest.raises(ConfigError) as found:
        claim_folder(tmp_path, IDENTITY_OF_A | {"pool": "mean"})
    assert str(found.value) == (
        f"{tmp_path}: holds features with pool=cls, and pool=mean is asked for. "
        f"Give another --output, or the settings of {tmp_path / IDENTITY}."
    )


def test_features_of_an_unknown_encoder_are_not_mixed_in(tmp_path: Path) -> None:
    (tmp_path / "20x_256px_0px_overlap" / "features_a").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"features_a: holds files, and no embed\.json says"):
        claim_folder(tmp_path, IDENTITY_OF_A)
    claim_folder(tmp_path, IDENTITY_OF_A | {"encoder": "b"})  # beside TRIDENT's of another name


@pytest.mark.parametrize("content", ["", "[]", "{"])
def test_a_folder_whose_file_is_damaged_is_left_alone(tmp_path: Path, content: str) -> None:
    (tmp_path / IDENTITY).write_text(content)
    with pytest.raises(DataError, match="so that it is not known whose features lie there"):
        claim_folder(tmp_path, IDENTITY_OF_A)


def test_what_a_killed_process_left_goes(tmp_path: Path) -> None:
    claim_folder(tmp_path, IDENTITY_OF_A)
    folder = tmp_path / "448px" / "features_a" / "c"
    folder.mkdir(parents=True)
    (folder / ".s.h5.17.partial").touch()
    (folder / "s.h5").touch()
    claim_folder(tmp_path, IDENTITY_OF_A)
    assert [path.name for path in folder.iterdir()] == ["s.h5"]
