"""Chooses the CPU kernels that compute SDNet."""

import os


def choose_kernels() -> None:
    """Limit oneDNN, MindSpore's CPU library, to AVX2, unless ONEDNN_MAX_CPU_ISA is already set.

    On a CPU with AVX-512, the oneDNN 3.10 inside MindSpore 2.10 uses its reference convolution for float32 in
    NCHW: 30 to 90 times slower than the AVX2 one, measured with ONEDNN_VERBOSE=1. It also makes hosts with and
    without AVX-512 use the same kernels. oneDNN reads the variable when it creates its first primitive, so call
    this before. Other devices ignore it.
    """
    os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")
