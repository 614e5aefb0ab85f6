"""From tokens to one vector an image."""

from __future__ import annotations

import torch

from adios_tme.inference.pool import pool_tokens


def test_registers_are_no_patches() -> None:
    tokens = torch.tensor([[[1.0, 2.0], [90.0, 90.0], [3.0, 5.0], [5.0, 9.0]]])
    found = {how: pool_tokens(tokens, how, 2).tolist() for how in ("cls", "mean", "cls_mean")}
    assert found == {
        "cls": [[1.0, 2.0]],
        "mean": [[4.0, 7.0]],
        "cls_mean": [[1.0, 2.0, 4.0, 7.0]],
    }
