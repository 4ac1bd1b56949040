"Matrix products: the choice of a library is measured once, kept, and can be overruled; the numbers stay."

import json

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from pixnerd import products
from pixnerd.products import FastLinear, onednn_is_faster, product, use_fast_products


@pytest.fixture
def undecided(monkeypatch, tmp_path):
    "A machine on which nothing was measured yet; the folder in which measurements would be kept."
    monkeypatch.delenv("PIXNERD_ONEDNN", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    onednn_is_faster.cache_clear()
    yield tmp_path/"pixnerd"
    onednn_is_faster.cache_clear()


needs_onednn = pytest.mark.skipif(
    not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()), reason="no second library here")


@needs_onednn
@pytest.mark.parametrize("gain, faster", [(2.1, True), (1.1, False), (.4, False)])
def test_the_choice_is_measured_once_and_kept(undecided, monkeypatch, gain, faster):
    "Also for later processes: a run that is continued multiplies by the same library."
    calls = []
    monkeypatch.setattr(products, "_measure_gain", lambda: calls.append(1) or gain)
    for _ in range(2):
        assert onednn_is_faster() == faster
        onednn_is_faster.cache_clear()                                    # as a new process would begin
    assert calls == [1]
    kept, = undecided.iterdir()
    assert json.loads(kept.read_text())["onednn_gain"] == gain
    kept.write_text("{")                                                  # a damaged file is measured anew
    assert onednn_is_faster() == faster and calls == [1, 1]


@needs_onednn
def test_where_nothing_can_be_kept_it_is_as_pytorch_has_it(undecided, monkeypatch):
    "Processes that cannot tell one another could choose differently, and then their numbers differ."
    undecided.write_text("a file where a folder should be")
    monkeypatch.setattr(products, "_measure_gain", lambda: 2.)
    assert not onednn_is_faster()


@needs_onednn
def test_of_two_who_measure_at_once_the_first_decides(undecided, monkeypatch):
    "The second finds a file that was not there when it began, and does as that says."
    def measure():
        monkeypatch.setattr(products, "_measure_gain", lambda: .5)
        assert products._kept_gain() == .5                                  # another process, while this one measures
        return 2.
    monkeypatch.setattr(products, "_measure_gain", measure)
    assert not onednn_is_faster() and len(list(undecided.iterdir())) == 1


@needs_onednn
def test_measuring_is_not_seen_by_what_is_going_on(undecided):
    "Random numbers, counted operations: as if nothing had happened."
    x, layer = torch.randn(3, 8), FastLinear(8, 4)
    before = torch.get_rng_state()
    with FlopCounterMode(display=False) as count: layer(x)
    assert count.get_total_flops() in (0, 2 * 3 * 8 * 4)                   # 0: PyTorch does not count oneDNN's
    assert torch.equal(torch.get_rng_state(), before) and any(undecided.iterdir())


@needs_onednn
@pytest.mark.parametrize("told", ["0", "1"])
def test_the_environment_overrules(undecided, monkeypatch, told):
    monkeypatch.setattr(products, "_measure_gain", lambda: pytest.fail("nothing is to be measured"))
    monkeypatch.setenv("PIXNERD_ONEDNN", told)
    assert onednn_is_faster() == (told == "1")


def test_the_environment_is_checked(undecided, monkeypatch):
    monkeypatch.setenv("PIXNERD_ONEDNN", "yes")
    with pytest.raises(ValueError, match="PIXNERD_ONEDNN must be 0 or 1, got 'yes'"): onednn_is_faster()


@pytest.mark.parametrize("told", ["0", "1"])
def test_both_libraries_give_the_same_product_and_gradients(undecided, monkeypatch, told):
    monkeypatch.setenv("PIXNERD_ONEDNN", told)
    for shape in ((40,), (5, 40), (2, 0, 40), (3, 7, 40)):
        x, weight, bias = (torch.randn(s).double().requires_grad_() for s in (shape, (24, 40), (24,)))
        single = [z.detach().float().requires_grad_() for z in (x, weight, bias)]
        exact, found = x @ weight.T + bias, product(*single)
        assert_close(found, exact.float(), atol=1e-5, rtol=1e-5)
        wanted = torch.autograd.grad(exact.square().sum(), (x, weight, bias))
        for a, b in zip(torch.autograd.grad(found.square().sum(), single), wanted):
            assert_close(a, b.float(), atol=1e-3, rtol=1e-4)


def test_a_model_keeps_its_parameters():
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 2, bias=False), nn.ReLU()))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    use_fast_products(model)
    assert [type(m) for m in (model[0], model[1][0])] == [FastLinear, FastLinear]
    after = model.state_dict()
    assert list(before) == list(after) and all(torch.equal(v, after[name]) for name, v in before.items())
