"""Tables of `npu-smi info` as its generations draw them, in npu_smi/; every value in them is made up."""

from pathlib import Path


def recorded(name: str) -> str:
    """The table of a chip and a version of the tool, as `910b_26.1`."""
    return (Path(__file__).parent / "npu_smi" / f"{name}.txt").read_text()
