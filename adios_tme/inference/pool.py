"""From the tokens of an image to one vector.

Shape legend: B images, T tokens (class token, registers, patches), D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from adios_tme.config.commands.embed import Pool


def pool_tokens(tokens_BTD: Tensor, how: Pool, num_prefix_tokens: int) -> Tensor:
    """One feature vector an image.

    Args:
        tokens_BTD: After the last norm, class token first, then registers, then patches.
        how: The class token, the mean of the patches, or both in a row.
        num_prefix_tokens: Class token and registers, which are no patches.

    Returns:
        (B, D), or (B, 2 D) for both.
    """
    if how == "cls":
        return tokens_BTD[:, 0]
    mean_BD = tokens_BTD[:, num_prefix_tokens:].mean(dim=1)
    return mean_BD if how == "mean" else torch.cat([tokens_BTD[:, 0], mean_BD], dim=1)
