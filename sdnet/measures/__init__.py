"""Hand-crafted measures of structure that compare optical and SAR images without training.

A measure maps a grey image to a few channels that describe local structure and look alike in both
sensors. Two images are compared by the correlation of their channels. NumPy and OpenCV only.
"""

from sdnet.measures.channels import MEASURES, Measure, cfog, cfog_mind, log_gabor, mind, phase_congruency
from sdnet.measures.correlation import Peak, correlate, find_peak, vertex
from sdnet.measures.patches import describe_patches, mean_surface, patch_distances

__all__ = [
    "MEASURES",
    "Measure",
    "Peak",
    "cfog",
    "cfog_mind",
    "correlate",
    "describe_patches",
    "find_peak",
    "log_gabor",
    "mean_surface",
    "mind",
    "patch_distances",
    "phase_congruency",
    "vertex",
]
