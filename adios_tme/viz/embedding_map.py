"""A map of embeddings on which images that are alike lie together, coloured by slide or class.

Shape legend: B images, D width.
"""

from __future__ import annotations

import importlib
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from adios_tme.errors import ConfigError, DataError
from adios_tme.viz.palette import PALETTE, colour

Floats = NDArray[np.floating]
Method = Literal["tsne", "umap"]

#: Module and extra of each method.
_NEEDS = {
    "tsne": ("sklearn", "scikit-learn", "probe"),
    "umap": ("umap", "umap-learn", "umap"),
}
FEWEST = 5
#: Groups beyond the palette share one colour.
_OTHERS, _GREY = "others", "#999999"


def require_map(method: Method) -> None:
    """Raise unless what a method needs is there.

    Raises:
        ConfigError: Saying how to install it.
    """
    module, package, extra = _NEEDS[method]
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"viz features: {package} is not installed, and --map {method} needs it. "
            f"Install it with pip install 'adios-tme[{extra}]'."
        ) from error


def embedding_map(classes_BD: Floats, method: Method, seed: int = 0) -> Floats:
    """Places (B, 2) of embeddings by their cosine distance.

    Args:
        classes_BD: Embeddings, five or more.
        method: t-SNE (van der Maaten and Hinton 2008) by scikit-learn, or UMAP (McInnes et al.
            2018, arXiv:1802.03426) by umap-learn.
        seed: Of the method.

    Raises:
        ConfigError: If its package is not installed.
        DataError: If there are too few.
    """
    require_map(method)
    count = len(classes_BD)
    if count < FEWEST:
        raise DataError(
            f"--map {method}: {count} images are too few, it needs {FEWEST}. "
            f"Give a folder with more images, or drop --map."
        )
    places_B2: Floats = _fit(classes_BD, method, count, seed)
    return places_B2


def _fit(classes_BD: Floats, method: Method, count: int, seed: int) -> Any:
    if method == "tsne":
        from sklearn.manifold import TSNE

        perplexity = min(30.0, (count - 1) / 3)
        fitted = TSNE(perplexity=perplexity, metric="cosine", init="random", random_state=seed)
        return fitted.fit_transform(classes_BD)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it tells that a seed makes it run on one core
        import umap

        neighbours = min(15, count - 1)
        # Its spectral start needs more points than a few.
        start = "spectral" if count > 20 else "random"
        fitted = umap.UMAP(n_neighbors=neighbours, metric="cosine", init=start, random_state=seed)
        return fitted.fit_transform(classes_BD)


def map_figure(places_B2: Floats, groups: Sequence[str], title: str = "") -> Figure:
    """A point for each image, coloured by its group; the largest groups have a colour each."""
    names = _named(groups)
    figure = Figure(figsize=(7.2, 5.6), layout="constrained")
    ax = figure.subplots()
    for number, name in enumerate(names):
        own = np.array([(each if each in names else _OTHERS) == name for each in groups])
        paint = _GREY if name == _OTHERS else colour(number)
        x, y = places_B2[own].T
        ax.scatter(x, y, s=18, color=paint, label=f"{name} ({own.sum()})")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_title(title, fontsize=10)
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    return figure


def _named(groups: Sequence[str]) -> list[str]:
    """The groups that have a colour, by name; the last may stand for the rest."""
    counts = Counter(groups)
    if len(counts) <= len(PALETTE):
        return sorted(counts)
    largest = sorted(name for name, _ in counts.most_common(len(PALETTE) - 1))
    return [*largest, _OTHERS]
