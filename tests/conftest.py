"What several test files share."

import os
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available(): os.environ.setdefault("TRITON_INTERPRET", "1")     # before anything imports Triton: its kernels then run on the CPU


@pytest.fixture(scope="session")
def root() -> Path:
    "The project's folder."
    return Path(__file__).resolve().parent.parent
