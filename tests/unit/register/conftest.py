"""The images that several tests register, and `sdnet register` itself."""

import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from rasterio.transform import from_origin

from sdnet.cli.program import main
from tests.made_pairs import pair
from tests.unit.register.geotiff import EDGE, SHIFT, write_geotiff


@pytest.fixture
def register(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs `sdnet register` in this process; returns exit code, output and errors."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sdnet", "register", *map(str, arguments), "--measure", "cfog"])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """optical.png, sar.png, sar16.png, stranger.png, and optical.tif, sar.tif of 10 m in UTM."""
    folder = tmp_path_factory.mktemp("images")
    optical, sar = pair(EDGE, SHIFT)
    cv2.imwrite(str(folder / "optical.png"), optical)
    cv2.imwrite(str(folder / "sar.png"), sar)
    cv2.imwrite(str(folder / "sar16.png"), sar.astype(np.uint16) * 100)
    cv2.imwrite(str(folder / "stranger.png"), pair(EDGE, SHIFT, seed=9)[1])
    write_geotiff(folder / "optical.tif", optical, from_origin(500_000, 4_000_000, 10, 10))
    # Cut and moved on the ground: 40 px right of the optical corner, where its content is 49.25 px right.
    part = np.ascontiguousarray(sar[:, 40:])
    write_geotiff(folder / "sar.tif", part, from_origin(500_400, 4_000_000, 10, 10))
    return folder
