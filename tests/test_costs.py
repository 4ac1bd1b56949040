"Costs are counted exactly, on fake tensors as on real ones, and times are compared in pairs."

from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from pixnerd.costs import Meter, _cost, _pieces, cost_by_part, operations, paired, roofline
from pixnerd.model import PRESETS, PixNerd
from pixnerd.reference import randomise_last_layer, published_forward

TINY = replace(PRESETS["digits"].config, width=32, heads=2, depth=2, field_width=8, patch=4, image_size=16)
TINY_TEXT = replace(PRESETS["XXL/16-text"].config, width=32, heads=2, depth=2, hidden=40, patch=4, image_size=16,
                    field_width=8, text_width=24, text_tokens=5, text_depth=1)


def test_the_meter_sees_what_lives():
    with Meter() as meter:
        a = torch.ones(1000)
        b = a + a
        view = b[10:].view(-1)
        del a, b
        assert meter.alive == 4000                          # the view keeps the whole
        del view
        assert meter.alive == 0
    assert meter.peak == 8000 and meter.moved == 4000 + 3 * 4000


def test_costs_need_no_numbers():
    "Counted on fake tensors and on real ones: the same operations, the same bytes."
    real = {name: _cost(run) for name, (_, run) in _pieces(TINY, 2).items()}
    with FakeTensorMode(): assert {name: _cost(run) for name, (_, run) in _pieces(TINY, 2).items()} == real
    assert all(part["forward bytes"] < 2 * part["backward bytes"] for part in real.values())


def test_operations_are_those_that_pytorch_counts():
    torch.manual_seed(0)
    model, x = randomise_last_layer(PixNerd(TINY)), torch.randn(1, 1, 16, 16)
    with FlopCounterMode(display=False) as count, torch.no_grad():
        published_forward(model, x, torch.rand(1), torch.tensor([3]))
    parts = operations(TINY)
    small = 2 * (256 * 32 + 32 * 32) + 2 * 16 * 16 * 64 * 8    # the time's MLP, and each pixel's place, as published
    assert count.get_total_flops() == pytest.approx(sum(parts.values()) + small, rel=1e-6)
    writing = cost_by_part(TINY)["field: writing weights"]["forward operations"]
    assert writing * 16 == pytest.approx(parts["writing weights"])


def test_operations_of_a_text_model_are_those_that_pytorch_counts():
    model = randomise_last_layer(PixNerd(TINY_TEXT, field_impl="plain")).double()
    x, text = torch.randn(1, 3, 16, 16).double(), torch.randn(1, 5, 24).double()
    with FlopCounterMode(display=False) as count, torch.no_grad(): model(x, torch.rand(1).double(), text)
    small = 2 * (256 * 32 + 32 * 32) + 2 * 16 * 64 * 8         # the time's MLP, and places once for all patches
    assert count.get_total_flops() == sum(operations(TINY_TEXT).values()) + small


def test_ratios_are_of_pairs():
    import time
    found = paired({"slow": lambda: time.sleep(.03), "fast": lambda: time.sleep(.01)}, rounds=3)
    assert found["slow"]["ratio"] == 1 and found["fast"]["low"] <= found["fast"]["ratio"] <= found["fast"]["high"]
    assert found["fast"]["seconds"] >= .01


def test_limits_are_rates():
    limits = roofline(size=256)
    assert 1e8 < limits["operations"] < 1e14 and 1e7 < limits["bytes"] < 1e13
