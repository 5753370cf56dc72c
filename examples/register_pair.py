"""Register two images and draw the result: python examples/register_pair.py optical.png sar.png figure.png"""

import sys

import cv2
import numpy as np

import sdnet
from sdnet.registration.figures import checkerboard
from sdnet.registration.warp import warp


def figure(optical: np.ndarray, sar: np.ndarray) -> np.ndarray:
    """A checkerboard of both images before, and after the SAR image was warped: uint8 [H, 2 W].

    optical, sar: uint8 [H, W] of one size. Ends the program when the match cannot be trusted.
    """
    found = sdnet.register(optical, sar)
    if not found.verdict.trusted or found.transform is None:
        sys.exit(f"not trusted: {found.verdict.reason}")
    rows, columns = optical.shape
    middle = np.array([rows, columns]) / 2
    [place] = found.transform.apply([middle])
    print(f"the middle of the optical image is {place - middle} px (rows, columns) away in the SAR image")
    warped = warp(sar, found.transform, (rows, columns))
    return np.hstack([checkerboard(optical, sar), checkerboard(optical, warped)])


if __name__ == "__main__":
    first, second, out = sys.argv[1:]
    images = [cv2.imread(path, cv2.IMREAD_GRAYSCALE) for path in (first, second)]
    cv2.imwrite(out, figure(*images))
