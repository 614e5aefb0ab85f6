"""One rule for what operating systems put beside files."""

from __future__ import annotations

import pytest

from adios_tme.data.junk import is_junk, junk_members
from adios_tme.data.members import Member, directory_of

JUNK = [
    "__MACOSX/slide_a/._patch_000_448_x0_y0.png",
    "__MACOSX/",
    "__MACOSX",
    "data/__MACOSX/p_448_.png",
    "a\\__MACOSX\\p_448_.png",
    "._patch_000_448_x0_y0.png",
    "slide/._p_448_.png",
    "slide\\._p_448_.png",
    ".DS_Store",
    "a/.ds_store",
    "Thumbs.db",
    "a/THUMBS.DB",
    "ehthumbs_vista.db",
    "desktop.ini",
    "a\\Desktop.ini",
    "@eaDir/p_448_.png/SYNOFILE_THUMB_M.png",
    "$RECYCLE.BIN/p_448_.png",
    ".Trash-1000/files/p_448_.png",
    ".ipynb_checkpoints/p-checkpoint.png",
    ".snapshot/hourly.0/p_448_.png",
    "~$labels.xlsx",
]
DATA = [
    "patch_000_448_x0_y0.png",
    "MACOSX/p_448_.png",
    "_.png",
    "a_._448_.png",
    "my.DS_Store.png",
    ".hidden_448_.png",
    "thumbs/p_448_.png",
    "thumbs.db/p_448_.png",
    "desktop.ini.png",
    "~p.png",
    "",
    "/",
]


@pytest.mark.parametrize("name", JUNK)
def test_junk(name: str) -> None:
    assert is_junk(name)


@pytest.mark.parametrize("name", DATA)
def test_what_is_data(name: str) -> None:
    assert not is_junk(name)


def test_many_names_at_once() -> None:
    names = [name for pair in zip(JUNK, DATA * 2, strict=False) for name in pair]
    members = directory_of([Member(name, 0, 0, 0, 0, 0) for name in names])
    assert junk_members(members).tolist() == [is_junk(name) for name in names]
    assert junk_members(directory_of([])).tolist() == []
