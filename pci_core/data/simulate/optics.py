"""What a microscope does to a true signal: blur, uneven light, background, shot and read noise."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import ndimage


@lru_cache(maxsize=64)
def _basis(length: int, scale_px: float) -> np.ndarray:
    """Return the weights (length, knots) that turn white noise at the knots into a smooth unit-variance line."""
    step = max(scale_px * 0.7, 1.0)
    knots = np.arange(-2 * step, length + 2 * step, step)
    # two gaussians of this width, convolved, give the correlation exp(-d² / (2 scale²))
    distance = (np.arange(length)[:, None] - knots) / (scale_px / np.sqrt(2))
    weights = np.exp(-0.5 * distance**2)
    weights /= np.sqrt((weights**2).sum(axis=1, keepdims=True))
    out: np.ndarray = weights.astype(np.float32)
    return out


@lru_cache(maxsize=64)
def _gain(sigma: float) -> float:
    """Return the standard deviation of white noise of variance 1 after `blur`."""
    line = np.zeros(2 * int(4 * sigma) + 9)
    line[len(line) // 2] = 1
    return float((ndimage.gaussian_filter1d(line, sigma, truncate=3.0) ** 2).sum())


def smooth_noise(shape: tuple[int, int], scale_px: float, rng: np.random.Generator) -> np.ndarray:
    """Draw a gaussian random field with zero mean and unit variance.

    Parameters
    ----------
    shape : (int, int)
        Height and width, px.
    scale_px : float
        Correlation length, px: the correlation falls as exp(-d² / (2 scale_px²)). Below 1, white noise.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray
        (H, W) float32.
    """
    if scale_px < 8:  # few pixels a knot: filtering is the cheaper way
        noise = rng.standard_normal(shape, dtype=np.float32)
        return noise if scale_px < 1 else blur(noise, scale_px / np.sqrt(2)) / np.float32(_gain(scale_px / np.sqrt(2)))
    rows, columns = _basis(shape[0], float(scale_px)), _basis(shape[1], float(scale_px))
    noise = rng.standard_normal((rows.shape[1], columns.shape[1]), dtype=np.float32)
    out: np.ndarray = rows @ noise @ columns.T
    return out


@lru_cache(maxsize=48)
def _tile(side: int, scale_px: float) -> np.ndarray:
    return smooth_noise((side, side), scale_px, np.random.default_rng(np.random.SeedSequence([side, round(1000 * scale_px)])))


def texture(shape: tuple[int, int], scale_px: float, rng: np.random.Generator) -> np.ndarray:
    """Return a view of a stored `smooth_noise` tile at a random place and orientation: the same law, far cheaper.

    For the mottle and speckle of patterns, where it does not matter that two fields may share a patch.
    The tile is twice as large as the view, so there are some 10⁶ views. Do not write into the result.

    Parameters
    ----------
    shape, scale_px, rng
        As for `smooth_noise`.

    Returns
    -------
    ndarray
        (H, W) float32, read-only where it is not copied.
    """
    side = 2 * max(shape)
    tile = _tile(side, float(scale_px))
    y, x = rng.integers(0, side - shape[0]), rng.integers(0, side - shape[1])
    view = tile[y : y + shape[0], x : x + shape[1]]
    flip = rng.integers(0, 8)
    if flip & 1:
        view = view[::-1]
    if flip & 2:
        view = view[:, ::-1]
    return view.T if flip & 4 and shape[0] == shape[1] else view


def blur(signal: np.ndarray, sigma_px: float) -> np.ndarray:
    """Return `signal` (H, W) under a gaussian of `sigma_px` px, as float32; unchanged below 0.2 px."""
    signal = np.asarray(signal, dtype=np.float32)
    return ndimage.gaussian_filter(signal, sigma_px, truncate=3.0) if sigma_px >= 0.2 else signal


def expose(
    signal: np.ndarray,
    rng: np.random.Generator,
    *,
    blur_px: float = 1.0,
    background: float = 0.02,
    photons: float = 400.0,
    read_noise: float = 0.01,
    illumination: float = 0.15,
) -> np.ndarray:
    """Image a true signal through a simulated microscope.

    Parameters
    ----------
    signal : ndarray
        (H, W), >= 0, about 1 where bright.
    rng : numpy.random.Generator
    blur_px : float
        Sigma of the gaussian point spread function, px.
    background : float
        Light that is everywhere, in units of the signal.
    photons : float
        Photons for one unit of signal; fewer give more shot noise. The Poisson law is drawn as a normal
        one of the same mean and variance, several times faster and alike from about five photons on.
    read_noise : float
        Standard deviation of the camera's noise, in units of the signal.
    illumination : float
        Depth of the smooth multiplicative gradient: standard deviation over the field, 0 = even light.

    Returns
    -------
    ndarray
        (H, W) float32, >= 0, not clipped above.
    """
    image = blur(signal, blur_px) + np.float32(background)
    if illumination > 0:
        light = smooth_noise(image.shape, 0.7 * max(image.shape), rng)
        image *= np.clip(1 + np.float32(illumination) * light, 0.2, 2.0)
    deviation = np.maximum(image, 0)
    deviation *= np.float32(1 / photons)
    deviation += np.float32(read_noise**2)
    np.sqrt(deviation, out=deviation)
    deviation *= rng.standard_normal(image.shape, dtype=np.float32)
    image += deviation
    return np.maximum(image, 0, out=image)
