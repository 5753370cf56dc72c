"""Evaluating a checkpoint on a cluster: every rank embeds some chunks of the pairs, the merge is exact.

Chunks are fixed by the batch size alone, so a pair goes through the network in the same
company whichever rank computes it, and its distance is the same to the last bit.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.errors import OrchestratorError
from orchestrator.ray_session import ray_session
from orchestrator.spec import ClusterSpec
from sdnet.data.store import open_patches
from sdnet.metrics import accuracy, fpr95
