"""Images of one place, and the reader under test."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from sdnet.images.decode import read_grey
from sdnet.preparation.synthetic import make_pair
from tests.unit.images.image_files import LIMIT


@pytest.fixture(scope="module")
def place() -> tuple[np.ndarray, np.ndarray]:
    """Grey optical and SAR image of one place."""
    optical, sar = make_pair(seed=1, scene=0, number=1)
    return cv2.cvtColor(optical, cv2.COLOR_BGR2GRAY), sar


@pytest.fixture
def read(tmp_path: Path) -> Any:
    """Reads the bytes of an image file."""

    def read_bytes(content: bytes) -> np.ndarray:
        path = tmp_path / "image.tif"
        path.write_bytes(content)
        return read_grey(path, LIMIT)

    return read_bytes
