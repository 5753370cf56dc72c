"""Tables of `npu-smi info` in the layouts of its generations, in npu_smi/; every value is invented."""

from pathlib import Path


def recorded(name: str) -> str:
    """The table of a chip and a version of the tool, as `910b_26.1`."""
    return (Path(__file__).parent / "npu_smi" / f"{name}.txt").read_text()
