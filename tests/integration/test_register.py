"""Many pairs registered by the workers of a cluster, for real."""

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.integration.ray_node import RayCluster
from tests.made_pairs import pair

pytestmark = pytest.mark.integration


def test_each_pair_of_a_table_gets_a_folder_and_a_row_from_any_worker(
    ray_cluster: RayCluster, tmp_path: Path
) -> None:
    optical, sar = pair(320, np.array([[1, 0, 9.25], [0, 1, -6.5], [0, 0, 1.0]]))
    for name, image in (("o", optical), ("s", sar), ("stranger", pair(320, np.eye(3), seed=9)[1])):
        cv2.imwrite(str(tmp_path / f"{name}.png"), image)
    (tmp_path / "pairs.csv").write_text(
        "name,optical,sar\na,o.png,s.png\nb,o.png,stranger.png\nc,o.png,nowhere.png\nd,o.png,s.png\n"
    )
    done = ray_cluster.run(
        "sdnet-orchestrate", "register", str(tmp_path / "pairs.csv"), "-o", str(tmp_path / "out"),
        "--measure", "cfog", "--workers", "2", "--address", ray_cluster.address,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert done.stdout == f"2 trusted, 1 not trusted, 1 unusable; see {tmp_path}/out/register.csv\n"
    with (tmp_path / "out/register.csv").open(newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert [rows[name]["status"] for name in "abcd"] == ["trusted", "not_trusted", "unusable", "trusted"]
    first, last = (
        {path.name: path.read_bytes() for path in (tmp_path / "out" / name).iterdir()} for name in "ad"
    )
    assert first == last and "warped.png" in first
