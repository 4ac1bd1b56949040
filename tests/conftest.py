"What several test files share."

import os
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available(): os.environ.setdefault("TRITON_INTERPRET", "1")     # before anything imports Triton: its kernels then run on the CPU


# The files that take longest, in this order: two processes then end about together. Browsers come early, one after the other.
LONGEST = """
    test_training test_explore_browser test_lab test_commands test_sample_folders test_docs test_studies test_benchmarks
    test_metrics test_shipped test_explorer test_served test_images test_data test_hub test_processes test_lean_field test_implementations
    test_text test_scene_eval test_record
""".split()


def pytest_collection_modifyitems(items):
    order = {name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


@pytest.fixture(scope="session")
def root() -> Path:
    "The project's folder."
    return Path(__file__).resolve().parent.parent
