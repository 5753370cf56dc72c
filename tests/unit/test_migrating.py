"""What docs/migrating.md promises exists: every key of ours that it names is one of cluster.yaml."""

import re
from pathlib import Path

import pytest

from orchestrator.job.spec.job_spec import JobSpec

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs/migrating.md").read_text()
# The published sen1-2_config.yaml, every key of it.
PUBLISHED_KEYS = (
    "modelArts_mode", "is_distributed", "data_url", "train_url", "dataroot", "device_target", "rank",
    "group_size", "seed", "imageSize", "mean_image", "std_image", "epochs", "batch_size", "num_tests",
    "num_train", "test_batch_size", "augmentation", "checkpoint_path", "onnx_filename", "air_filename",
    "ckpt_save_dir", "optimizer", "lr", "beta1", "beta2", "lr_decay", "wd", "ckpt_file", "file_name",
    "file_format", "loss", "batch_reduce", "reconw", "anchorave", "anchorswap", "margin", "temp", "weight",
)  # fmt: skip


@pytest.mark.parametrize("key", PUBLISHED_KEYS)
def test_every_published_key_is_mapped(key):
    assert re.search(rf"^\|[^|]*`{key}`[^|]*\|", TEXT, flags=re.MULTILINE)


def test_every_key_of_ours_that_is_named_exists():
    sections = "|".join(JobSpec.model_fields)
    named = set(re.findall(rf"`((?:{sections})\.[a-z0-9_.]+)", TEXT))
    assert len(named) > 15
    for key in named - {"train.npz"}:
        section, _, field = key.partition(".")
        known = JobSpec.model_fields[section].annotation
        names = getattr(known, "model_fields", None) or getattr(known, "__dataclass_fields__", {})
        assert field.split(".")[0] in names, key


def test_every_file_that_is_named_exists():
    for path in re.findall(r"cluster_configs/[\w./-]+\.yaml", TEXT):
        assert (ROOT / path).is_file(), path
