"""What an encoder sees: patch tokens as colours, the class token's attention, neighbours.

Shape legend: B images, Q images that are drawn, H x W pixels, h x w patch tokens, D width,
A attention heads, K neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from skimage.filters import threshold_otsu
from torch import Tensor

from adios_tme.data.spread import spread
from adios_tme.errors import CheckpointError
from adios_tme.models.layers import Normalise
from adios_tme.models.vit import VisionTransformer
from adios_tme.viz.figure import image_grid

Floats = NDArray[np.floating]
Places = NDArray[np.integer]

#: Shares of the tokens that a colour leaves out at both ends, so that a few do not darken the rest.
CLIPPED = (1.0, 99.0)
BACKGROUND = 1.0
#: Images in one forward pass.
BATCH_SIZE = 32


class FeaturePicture(NamedTuple):
    """A picture of features, and what it shows in numbers."""

    figure: Figure
    explained: list[float]
    """Share of the variance of the tokens that red, green and blue each explain."""
    classes: Floats | None
    """(B, D) class tokens of all images, where they were needed."""


def draw_features(
    encoder: VisionTransformer,
    normalise: Normalise,
    images_BCHW: Tensor,
    num_rows: int,
    *,
    title: str = "",
    foreground: bool = False,
    num_neighbours: int = 0,
    with_classes: bool = False,
) -> FeaturePicture:
    """Draw some of many images, evenly taken, as `feature_figure` does.

    Args:
        encoder: In evaluation mode.
        normalise: As it was trained with, on its device.
        images_BCHW: uint8 images of the encoder's size.
        num_rows: How many are drawn at most.
        title: Stands above the picture.
        foreground: See `principal_colours`.
        num_neighbours: Neighbours of each, out of all images.
        with_classes: Embed all images also where no neighbour is asked for.

    Raises:
        CheckpointError: If tokens are not finite.
    """
    rows = np.array(spread(range(len(images_BCHW)), num_rows))
    maps = token_maps(encoder, normalise, images_BCHW[rows])
    if not np.isfinite(maps.patches).all():
        raise CheckpointError(
            f"{title or 'encoder'}: its patch tokens are not finite. "
            f"Use a checkpoint from before the run diverged."
        )
    images_BHWC = images_BCHW.movedim(1, 3).numpy()
    colours, shares = principal_colours(maps.patches, images_BHWC[rows] if foreground else None)
    classes = neighbours = None
    if with_classes or num_neighbours:
        classes = embed(encoder, normalise, images_BCHW)
    if num_neighbours and classes is not None:
        places, similarities = nearest(classes, rows, num_neighbours)
        neighbours = Neighbours(images_BHWC[places], similarities)
    figure = feature_figure(images_BHWC[rows], colours, maps.attention, title, neighbours)
    return FeaturePicture(figure, [float(share) for share in shares], classes)


@dataclass(frozen=True)
class TokenMaps:
    """What an encoder makes of some images."""

    patches: Floats
    """(B, h, w, D) tokens after the last norm."""
    attention: Floats
    """(B, A, h, w) of the class token in the last block."""


@torch.no_grad()
def token_maps(encoder: VisionTransformer, normalise: Normalise, images_BCHW: Tensor) -> TokenMaps:
    """Encode images (uint8) for a picture of their tokens."""
    x_BCHW = normalise(images_BCHW.to(normalise.mean.device))
    patches_BDhw = encoder.patch_map(x_BCHW)
    attention_BAhw = encoder.class_attention(x_BCHW)
    return TokenMaps(patches_BDhw.movedim(1, 3).float().cpu().numpy(), attention_BAhw.cpu().numpy())


@torch.no_grad()
def embed(encoder: VisionTransformer, normalise: Normalise, images_BCHW: Tensor) -> Floats:
    """Class tokens (B, D) of images (uint8)."""
    device = normalise.mean.device
    parts = [
        encoder.class_tokens([normalise(part.to(device))]).float().cpu()
        for part in images_BCHW.split(BATCH_SIZE)
    ]
    classes_BD: Floats = torch.cat(parts).numpy()
    return classes_BD


def principal_colours(
    patches_BhwD: Floats, images_BHWC: NDArray[np.uint8] | None = None
) -> tuple[Floats, Floats]:
    """The first three principal components of all patch tokens as red, green and blue.

    One basis and one scale serve all images, so that a colour means the same in each of them.

    Args:
        patches_BhwD: Patch tokens.
        images_BHWC: Given, only the foreground has a colour: the side of the first component on
            which these images are darker, split by Otsu's threshold; its tokens have a basis of
            their own (as Oquab et al. 2023, arXiv:2304.07193, do).

    Returns:
        Colours (B, h, w, 3) in [0, 1], white in the background, and the share of the variance
        that each of the three components explains.
    """
    grid, tokens_TD = patches_BhwD.shape[:3], patches_BhwD.reshape(-1, patches_BhwD.shape[-1])
    shown_T = np.ones(len(tokens_TD), dtype=bool)
    if images_BHWC is not None:
        shown_T = _foreground(tokens_TD, _darkness(images_BHWC, grid))
    components_T3, shares = _project(tokens_TD[shown_T])
    low, high = np.percentile(components_T3, CLIPPED, axis=0)
    scaled_T3 = (components_T3 - low) / np.maximum(high - low, 1e-12)
    colours_T3 = np.full((len(tokens_TD), 3), BACKGROUND)
    colours_T3[shown_T] = scaled_T3.clip(0, 1)
    return colours_T3.reshape(*grid, 3), shares


def _project(tokens_TD: Floats) -> tuple[Floats, Floats]:
    """Tokens on their first three components (T, 3), and what these explain of the variance."""
    centred_TD = (tokens_TD - tokens_TD.mean(axis=0)).astype(np.float64)
    variances, axes_DD = np.linalg.eigh(centred_TD.T @ centred_TD)
    axes_D3 = axes_DD[:, ::-1][:, :3]
    # The sign of an axis is arbitrary; its largest entry is made positive.
    largest = np.abs(axes_D3).argmax(axis=0)
    axes_D3 = axes_D3 * np.sign(axes_D3[largest, range(axes_D3.shape[1])])
    shares = variances[::-1][:3] / max(float(variances.sum()), 1e-12)
    return centred_TD @ axes_D3, shares.clip(0, 1)


def _foreground(tokens_TD: Floats, darkness_T: Floats) -> NDArray[np.bool_]:
    first_T = _project(tokens_TD)[0][:, 0]
    above_T: NDArray[np.bool_] = first_T > threshold_otsu(first_T)
    is_split = above_T.any() and not above_T.all()
    if is_split and darkness_T[above_T].mean() < darkness_T[~above_T].mean():
        return ~above_T
    return above_T if is_split else np.ones_like(above_T)


def _darkness(images_BHWC: NDArray[np.uint8], grid: tuple[int, ...]) -> Floats:
    """How dark each patch is (T,), 0 to 255."""
    num_images, height, width = grid
    sides = (num_images, height, images_BHWC.shape[1] // height, width, -1)
    means_Bhw: Floats = images_BHWC.mean(axis=3).reshape(sides).mean(axis=(2, 4))
    return 255 - means_Bhw.ravel()


def nearest(classes_BD: Floats, queries: Places, count: int) -> tuple[Places, Floats]:
    """The images most like some of them, by the cosine of their class tokens.

    Args:
        classes_BD: Class tokens.
        queries: Places of the Q images that are asked for; none is its own neighbour.
        count: K; fewer where there are not as many others.

    Returns:
        Places (Q, K) of the neighbours, nearest first, and their cosine similarities (Q, K).
    """
    unit_BD = classes_BD / np.maximum(np.linalg.norm(classes_BD, axis=1, keepdims=True), 1e-12)
    similarity_QB = unit_BD[queries] @ unit_BD.T
    similarity_QB[np.arange(len(queries)), queries] = -np.inf
    count = min(count, len(classes_BD) - 1)
    places_QK = np.argsort(-similarity_QB, axis=1, kind="stable")[:, :count]
    return places_QK, np.take_along_axis(similarity_QB, places_QK, axis=1)


@dataclass(frozen=True)
class Neighbours:
    """Images beside each that is drawn."""

    images: NDArray[np.uint8]
    """(Q, K, H, W, 3), nearest first."""
    similarities: Floats
    """(Q, K) cosine."""


def feature_figure(
    images_QHWC: NDArray[np.uint8],
    colours_Qhw3: Floats,
    attention_QAhw: Floats,
    title: str = "",
    neighbours: Neighbours | None = None,
) -> Figure:
    """A row for each image: the image, its tokens as colours, each head, and its neighbours."""
    num_heads = attention_QAhw.shape[1]
    num_near = 0 if neighbours is None else neighbours.images.shape[1]
    heads = [f"Head {number}" for number in range(1, num_heads + 1)]
    near = [f"Neighbour {number}" for number in range(1, num_near + 1)]
    figure, cells = image_grid(
        len(images_QHWC), ["Image", "Patch tokens (PCA)", *heads, *near], title
    )
    for row, (image, colours, heads_Ahw) in enumerate(
        zip(images_QHWC, colours_Qhw3, attention_QAhw, strict=True)
    ):
        cells[row][0].imshow(image)
        cells[row][1].imshow(colours, interpolation="nearest")
        for cell, head in zip(cells[row][2:], heads_Ahw, strict=False):
            cell.imshow(head, cmap="magma", vmin=0, interpolation="nearest")
        if neighbours is not None:
            _draw_neighbours(cells[row][2 + num_heads :], neighbours, row)
    return figure


def _draw_neighbours(cells: NDArray[np.object_], neighbours: Neighbours, row: int) -> None:
    near = zip(cells, neighbours.images[row], neighbours.similarities[row], strict=True)
    for cell, image, similarity in near:
        cell.imshow(image)
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
        cell.text(
            *(0.04, 0.05, f"{similarity:.3f}"), transform=cell.transAxes, fontsize=7, bbox=box
        )
