"""The palette's promises: contrast on both themes, neighbours told apart with any colour vision."""

from itertools import pairwise

import numpy as np
import pytest

from normlib import style

# sRGB (linear) to the cones' responses, and what a dichromat sees, after Viénot, Brettel and Mollon (1999)
CONES = np.array([[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]])
VISION = {
    "normal": np.eye(3),
    "protanopia": np.array([[0, 2.02344, -2.52581], [0, 1, 0], [0, 0, 1]]),
    "deuteranopia": np.array([[1, 0, 0], [0.494207, 0, 1.24827], [0, 0, 1]]),
}
XYZ = np.array([[0.41246, 0.35758, 0.18044], [0.21267, 0.71515, 0.07218], [0.01933, 0.11919, 0.95030]])


def linear(color):
    """Hexadecimal sRGB as linear intensities (3,)."""
    v = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)


def luminance(color):
    return float(XYZ[1] @ linear(color))


def contrast(a, b):
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def lab(color, vision="normal"):
    """CIELAB coordinates as a viewer with that colour vision sees them."""
    seen = np.linalg.inv(CONES) @ VISION[vision] @ CONES @ linear(color)
    t = XYZ @ seen.clip(0, 1) / XYZ.sum(1)
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def test_the_measures_themselves():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
    np.testing.assert_allclose(lab("#ffffff"), [100, 0, 0], atol=1e-3)
    red, green = "#c04000", "#608000"
    distance = {vision: np.linalg.norm(lab(red, vision) - lab(green, vision)) for vision in VISION}
    assert distance["normal"] > 3 * distance["deuteranopia"]


@pytest.mark.parametrize("color", style.COLORS)
def test_every_colour_stands_out_on_both_pages(color):
    assert 0.12 <= luminance(color) <= 0.30
    assert contrast(color, "#ffffff") >= 3
    assert contrast(color, "#121212") >= 3


@pytest.mark.parametrize("vision", VISION)
def test_neighbours_are_told_apart(vision):
    seen = [lab(color, vision) for color in style.COLORS]
    distances = [np.linalg.norm(a - b) for a, b in pairwise(seen)]
    assert min(distances) > 12  # 2.3 is just noticeable side by side; thin lines need several times that


def test_colours_dashes_and_markers_pair_up_without_repeats():
    for each in (style.COLORS, style.DASHES, style.MARKERS):
        assert len(set(each)) == len(each) == len(style.COLORS)
