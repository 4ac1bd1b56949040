"A compiled model learns as the plain one does."

import pytest

from pixnerd.run_settings import TrainConfig
from pixnerd.training import train


def test_compiled_training_is_training(tmp_path):
    "The same losses and gradient norms to rounding, with accumulation and alignment: three steps."
    settings = dict(steps=3, batch=8, accumulate=2, align="digits", align_block=2, warmup=0, device="cpu")
    found = []
    for compiled in (False, True):
        config = TrainConfig(out=str(tmp_path/str(compiled)), compile=compiled, **settings)
        found.append([(step.loss.mean().item(), step.grad_norm.item()) for step in train(config)])
    for plain, compiled in zip(*found, strict=True): assert compiled == pytest.approx(plain, rel=1e-3)
