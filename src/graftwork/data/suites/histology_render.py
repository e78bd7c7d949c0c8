"""Pictures of generated tissue: concentrations of dyes, light that passes through them, and back from light to dyes.

The optical densities of haematoxylin, eosin and DAB are those of Ruifrok and Johnston, "Quantification of histochemical staining
by color deconvolution", Analytical and Quantitative Cytology and Histology 23, 2001.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.seeds import Seeds
from graftwork.data.suites.histology_layout import Nuclei

__all__ = ["DYES", "grain_field", "render_tissue", "separate_dyes", "transmit"]

Array = NDArray[Any]

DYES: Mapping[str, tuple[float, float, float]] = {
    "haematoxylin": (0.65, 0.70, 0.29),
    "eosin": (0.07, 0.99, 0.11),
    "dab": (0.27, 0.57, 0.78),
}
"""Optical density (decimal) of each dye at concentration 1, for red, green and blue light."""
DILATION = 1.0
"""Pixels by which the coarse mask reaches over the edge of a nucleus."""
COARSE = 1.0
"""Width of the grain of positive nuclei in pixels; that of the others is 0."""


def transmit(concentrations: Mapping[str, Array]) -> NDArray[np.float64]:
    """Return the light that passes through stained tissue, float64 ``[..., 3]`` in (0, 1]: densities add up (Beer and Lambert).

    Args:
        concentrations: ``{dye: [...]}``, names of :data:`DYES`; below 0 counts as 0.

    Example:
        >>> [round(float(value), 2) for value in transmit({"dab": np.array(1.0)})]
        [0.54, 0.27, 0.17]
    """
    density: Array = np.zeros(3)
    for dye, amount in concentrations.items():
        density = density + np.maximum(amount, 0.0)[..., None] * np.array(DYES[dye])
    # Decimal densities: 10^-d of the light passes.
    return np.asarray(10.0**-density)


def separate_dyes(picture: Array, *, least: float = 1.0 / 255.0) -> dict[str, NDArray[np.float64]]:
    """Return how much of each of the three dyes explains a picture: the inverse of :func:`transmit`.

    Args:
        picture: Float ``[..., 3]``, the share of light that passes, in [0, 1].
        least: Darker values count as this one, above 0.

    Returns:
        ``{dye: [...]}``; noise can make a concentration negative.
    """
    density = -np.log10(np.clip(np.asarray(picture, dtype=np.float64), least, 1.0))
    # Three dyes and three colours: the densities form a square matrix.
    amounts = density @ np.linalg.inv(np.array(list(DYES.values())))
    return {dye: amounts[..., index] for index, dye in enumerate(DYES)}


def render_tissue(nuclei: Nuclei, seeds: Seeds, *, size: int, contrast: float, pixel_noise: float) -> dict[str, Array]:
    """Return both pictures and the coarse mask.

    Args:
        nuclei: The nuclei of ``N`` pictures.
        seeds: Root of the streams; the two stains share none.
        size: Height and width in pixels.
        contrast: Strength of the grain relative to the mean of the chromatin.
        pixel_noise: Deviation of the noise, as a share of full light.

    Returns:
        ``image`` uint8 ``[N, size, size, 3]``, ``stain`` float32 ``[N, 3, size, size]`` in [0, 1], ``mask`` int64 ``[N, size,
        size]``.
    """
    shape = (len(nuclei.present), size, size)
    routine, special = seeds.numpy("routine"), seeds.numpy("special")
    # Both are drawn for every pixel, so that the type decides only which is shown.
    fine, coarse = grain_field(routine, shape, 0.0), grain_field(routine, shape, COARSE)
    cover, chromatin, brown, mask = np.zeros(shape), np.zeros(shape), np.zeros(shape), np.zeros(shape, dtype=bool)
    for slot in range(nuclei.present.shape[1]):
        distance = nuclei.distance(slot, size)
        kind, there, marked, radius, amount, uptake = (
            values[:, slot, None, None]
            for values in (nuclei.positive, nuclei.present, nuclei.marked, nuclei.radius, nuclei.chromatin, nuclei.uptake)
        )
        own = there * _soft_edge((1.0 - distance) * radius)
        grain = _standardised(np.where(kind, coarse, fine), distance < 1.0)
        cover += own
        chromatin += own * amount * (1.0 + contrast * grain)
        brown += own * uptake * kind
        mask |= marked & (distance < 1.0 + DILATION / radius)
    first = {
        "haematoxylin": 0.06 + 0.02 * grain_field(routine, shape, 2.0) + chromatin,
        "eosin": (0.22 + 0.06 * grain_field(routine, shape, 3.0)) * (1.0 - 0.5 * cover),
    }
    second = {
        "haematoxylin": 0.04 + 0.02 * grain_field(special, shape, 2.0) + cover * (0.18 + 0.05 * grain_field(special, shape, 0.7)),
        "dab": 0.05 + 0.03 * grain_field(special, shape, 3.0) + brown,
    }
    image, stain = (_photograph(dyes, draws, pixel_noise) for dyes, draws in ((first, routine), (second, special)))
    return {
        "image": np.round(image * 255.0).astype(np.uint8),
        "stain": np.moveaxis(stain, -1, 1).astype(np.float32),
        "mask": mask.astype(np.int64),
    }


def grain_field(generator: np.random.Generator, shape: tuple[int, int, int], width: float) -> NDArray[np.float64]:
    """Return random fields ``[N, S, S]`` of mean 0 and deviation 1, smoothed by a Gaussian of ``width`` pixels (0: white noise)."""
    noise = generator.standard_normal(shape)
    if width == 0:
        return noise
    square = np.fft.fftfreq(shape[1]) ** 2
    # The Fourier transform of a Gaussian: exp(-2 pi^2 width^2 f^2).
    passed = np.exp(-2.0 * (np.pi * width) ** 2 * (square[:, None] + square[None, :]))
    # Divided by the deviation that is left after smoothing.
    return np.asarray(np.fft.ifft2(np.fft.fft2(noise) * passed).real / np.sqrt((passed**2).mean()))


def _soft_edge(pixels_inside: Array) -> Array:
    return np.asarray(1.0 / (1.0 + np.exp(np.clip(-4.0 * pixels_inside, -50.0, 50.0))))


def _standardised(field: Array, inside: Array) -> Array:
    """Return a field with mean 0 and deviation 1 over the pixels inside, so that neither tells the type; outliers are cut off."""
    number = np.maximum(inside.sum(axis=(1, 2), keepdims=True), 1)
    mean = (field * inside).sum(axis=(1, 2), keepdims=True) / number
    spread = np.sqrt(((field - mean) ** 2 * inside).sum(axis=(1, 2), keepdims=True) / number)
    return np.asarray(np.clip((field - mean) / np.maximum(spread, 1e-6), -2.5, 2.5))


def _photograph(dyes: Mapping[str, Array], generator: np.random.Generator, pixel_noise: float) -> Array:
    """Return the picture of tissue stained with some strength of each dye, drawn for each picture."""
    strength = {dye: generator.uniform(0.85, 1.15, (len(amount), 1, 1)) for dye, amount in dyes.items()}
    light = transmit({dye: amount * strength[dye] for dye, amount in dyes.items()})
    return np.asarray(np.clip(light + pixel_noise * generator.standard_normal(light.shape), 0.0, 1.0))
