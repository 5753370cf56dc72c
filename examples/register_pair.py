"""Register two images and draw the result: python examples/register_pair.py [optical.png sar.png] figure.png

Without images it registers a synthetic pair; docs/registered_pair.jpg is the figure of that pair.
"""

import sys

import cv2
import numpy as np

import sdnet
from sdnet.preparation.synthetic import make_pair
from sdnet.registration.files.figures import checkerboard
from sdnet.registration.files.warp import warp


def made_pair() -> tuple[np.ndarray, np.ndarray]:
    """Four synthetic pairs side by side, uint8 [512, 512] each; SAR is rotated by 2 degrees and shifted by 15 px."""
    tiles = [make_pair(7, 0, number) for number in range(4)]
    optical, sar = (
        np.vstack([np.hstack(side[:2]), np.hstack(side[2:])])
        for side in (
            [cv2.cvtColor(tile[0], cv2.COLOR_BGR2GRAY) for tile in tiles],
            [tile[1] for tile in tiles],
        )
    )
    turn = cv2.getRotationMatrix2D((255.5, 255.5), 2, 1) + np.array([[0, 0, 12], [0, 0, -9]])
    return optical, cv2.warpAffine(sar, turn, (512, 512), flags=cv2.INTER_CUBIC)


def figure(optical: np.ndarray, sar: np.ndarray) -> np.ndarray:
    """Checkerboards of both images, before and after the warp of the SAR image: uint8 [H, 2 W].

    optical, sar: uint8 [H, W] of the same size. Exits when the match cannot be trusted.
    """
    found = sdnet.register(optical, sar)
    if not found.verdict.trusted or found.transform is None:
        sys.exit(f"not trusted: {found.verdict.reason}")
    rows, columns = optical.shape
    middle = np.array([rows, columns]) / 2
    [place] = found.transform.apply([middle])
    print(
        f"the middle of the optical image is shifted by {place - middle} px (rows, columns) in the SAR image"
    )
    warped = warp(sar, found.transform, (rows, columns))
    return np.hstack([checkerboard(optical, sar), checkerboard(optical, warped)])


if __name__ == "__main__":
    *paths, out = sys.argv[1:]
    images = [cv2.imread(path, cv2.IMREAD_GRAYSCALE) for path in paths] or made_pair()
    cv2.imwrite(out, figure(*images))
