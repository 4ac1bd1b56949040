"A compiled model learns as the plain one does."

import pytest

from pixnerd.run_settings import TrainConfig
from pixnerd.training import train


def test_compiled_training_is_training(tmp_path):
    "The same losses and gradient norms to rounding, with accumulation and alignment: three steps."
    settings = dict(steps=3, batch=8, accumulate=2, align="digits", align_block=2, warmup=0, device="cpu")
    plain, compiled = ([(s.loss.mean().item(), s.grad_norm.item()) for s in train(TrainConfig(out=str(tmp_path/str(c)), compile=c, **settings))] for c in (False, True))
    for a, b in zip(compiled, plain, strict=True): assert a == pytest.approx(b, rel=1e-3)
