"Benchmarks: the baseline is the published arithmetic, memory is counted exactly, ratios are of pairs, and a run leaves its file."

import json
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

import fresh
from pixnerd.benchmarks import (
    ENDINGS, TASKS, WAYS, BenchConfig, Way, as_table, bench, cases, compiled, evaluations, gradients, held_bytes,
    make_batch, measure, peak_of, published_sample, training_memory)
from pixnerd.costs import Meter, account, cost, operations, paired, pieces, roofline
from pixnerd.reference import awake, published_forward
from pixnerd.checkpoints import from_official
from pixnerd.model import PRESETS, PixNerd
from pixnerd.samplers import sample
from test_published import load, weights_of

ROOT = Path(__file__).resolve().parent.parent
TINY = replace(PRESETS["digits"].config, width=32, heads=2, depth=2, field_width=8, patch=4, image_size=16)


@pytest.mark.parametrize("name", ["c2i_tiny", "c2i_gray_nonsquare"])
def test_the_baseline_equals_the_reference(name):
    tensors, about = load(name)
    model = from_official(weights_of(tensors), json.loads(about["config"]))
    with torch.no_grad(): output = published_forward(model, tensors["input.x"], tensors["input.t"], tensors["input.y"])
    assert (output - tensors["output"]).abs().max() <= 1e-5 * max(1, tensors["output"].abs().max().item())


@pytest.mark.parametrize("changes", [{}, dict(field_depth=3, field_ratio=1), dict(normalise=("W1",), output_norm=False), dict(noisy_pixels=True, encoding="sincos")], ids=str)
def test_the_baseline_has_the_models_gradients(changes):
    torch.manual_seed(0)
    model, (x, _, t, cond) = awake(PixNerd(replace(TINY, **changes))), make_batch(TINY, 3)
    theirs, ours = (torch.autograd.grad(run().square().mean(), model.parameters()) for run in (lambda: published_forward(model, x, t, cond), lambda: model(x, t, cond)))
    for a, b in zip(theirs, ours): assert (a - b).abs().max() <= 1e-5 * a.abs().max().clamp_min(.1)


def test_the_baseline_samples_as_we_do():
    torch.manual_seed(0)
    model, (_, noise, _, cond) = awake(PixNerd(TINY)).eval(), make_batch(TINY, 2)
    null = torch.full_like(cond, 10)
    assert_close(published_sample(model, noise, cond, null, steps=7),
                 sample(model, noise, cond, null, steps=7, guidance_scale=3.5, guidance_interval=(.1, 1.)), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["lean", "plain", "linear", "off"])
def test_counting_on_fake_tensors_is_counting(name):
    "In the precision where both compute alike, the peak without numbers is the peak with them."
    batch, way = make_batch(TINY, 2), Way(name, TINY, torch.device("cpu"), torch.bfloat16)
    gradients(way, batch)
    way.model.zero_grad(set_to_none=True)
    real = peak_of(lambda: gradients(way, batch), torch.device("cpu"))
    fake = training_memory(TINY, name, 2)["peak"]
    assert abs(fake - real) <= .02 * real, (fake, real)


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
    real = {name: cost(run) for name, (_, run) in pieces(TINY, 2).items()}
    with FakeTensorMode(): assert {name: cost(run) for name, (_, run) in pieces(TINY, 2).items()} == real
    assert all(part["forward bytes"] < 2 * part["backward bytes"] for part in real.values())


def test_the_lean_field_saves_what_it_says():
    "At the published shape of the field, the training memory of a model is at most half of the published arithmetic's."
    config = replace(PRESETS["XL/16"].config, depth=2, field_depth=2, width=192, heads=4)
    peaks = {}
    for name in ("published", "lean"):
        way, batch = Way(name, config, torch.device("cpu")), make_batch(config, 1)
        gradients(way, batch)
        peaks[name] = peak_of(lambda: gradients(way, batch), torch.device("cpu"))
    assert peaks["lean"] <= .5 * peaks["published"], peaks


def test_operations_are_those_that_pytorch_counts():
    torch.manual_seed(0)
    model, (x, _, t, cond) = awake(PixNerd(TINY)), make_batch(TINY, 1)
    with FlopCounterMode(display=False) as count, torch.no_grad(): published_forward(model, x, t, cond)
    parts = operations(TINY)
    small = 2 * (256 * 32 + 32 * 32) + 2 * 16 * 16 * 64 * 8                        # the time's MLP, and atoms that the published arithmetic multiplies for every pixel
    assert count.get_total_flops() == pytest.approx(sum(parts.values()) + small, rel=1e-6)
    assert account(TINY)["field: writing weights"]["forward operations"] * 16 == pytest.approx(parts["writing weights"])


def test_operations_of_a_text_model_are_those_that_pytorch_counts():
    c = replace(PRESETS["XXL/16-text"].config, width=32, heads=2, depth=2, hidden=40, patch=4, image_size=16, field_width=8, text_width=24, text_tokens=5, text_depth=1)
    model, (x, _, t, cond) = awake(PixNerd(c, field_impl="plain")).double(), make_batch(c, 1)
    with FlopCounterMode(display=False) as count, torch.no_grad(): model(x.double(), t.double(), cond.double())
    small = 2 * (256 * 32 + 32 * 32) + 2 * 16 * 64 * 8                             # the time's MLP, and the places, once for all patches
    assert count.get_total_flops() == sum(operations(c).values()) + small


def test_a_text_model_is_measured_too():
    c = replace(PRESETS["XXL/16-text"].config, width=32, heads=2, depth=1, hidden=40, patch=4, image_size=16, field_width=8, text_width=24, text_tokens=5, text_depth=1)
    rows = list(measure(BenchConfig(ways="plain,lean,linear", tasks="forward,train,sample", rounds=1, steps=2, device="cpu"), c, 1))
    assert len(rows) == 9 and all(r["seconds"] > 0 for r in rows)
    assert training_memory(c, "lean", 2)["peak"] < training_memory(c, "plain", 2)["peak"]


def test_compiled_and_graphed_are_ways():
    "What a compiler makes of them is its own business: here it is told to do nothing."
    assert {Way(f"lean {end}".strip(), TINY, torch.device("cpu")).name for end in ENDINGS} == {"lean", "lean compiled", "lean graphed"}
    kept = torch.zeros(3)
    def run(x): return kept.copy_(x)                                               # as a graph does: into the same place each time
    with torch.compiler.set_stance("force_eager"):
        fast = compiled(run, graphs=True)
        first, second = fast(torch.ones(3)), fast(2 * torch.ones(3))
    assert first.tolist() == [1] * 3 and second.tolist() == [2] * 3
    with pytest.raises(ValueError, match="with or without ' compiled' or ' graphed', got 'lean fast'"): Way("lean fast", TINY, torch.device("cpu"))


def test_what_cannot_fit_is_refused_before_anything_is_built(tmp_path):
    one = held_bytes(PRESETS["XL/16"].config, ["lean"], ["forward"])
    assert one == 4 * 700_589_219 and held_bytes(PRESETS["XL/16"].config, ["lean", "plain compiled"], ["train"]) == 5 * one
    assert held_bytes(PRESETS["XL/16"].config, ["published", "lean"], ["gradients", "train"]) == 8 * one
    ways = "published,lean,linear,off"
    huge = BenchConfig(preset="XL/16", depth=1500, ways=ways, device="cpu", out=str(tmp_path/"b.json"))
    with pytest.raises(ValueError, match="needs .* GB of memory before the first image, this machine has .*: choose a smaller preset, fewer ways or tasks, or --quick"): next(bench(huge))
    assert not any(tmp_path.iterdir())


def test_ratios_are_of_pairs():
    import time
    found = paired({"slow": lambda: time.sleep(.03), "fast": lambda: time.sleep(.01)}, rounds=3)
    assert found["slow"]["ratio"] == 1 and found["fast"]["low"] <= found["fast"]["ratio"] <= found["fast"]["high"]
    assert found["fast"]["seconds"] >= .01


def test_a_benchmark_leaves_its_file(tmp_path):
    b = BenchConfig(preset="digits", depth=1, field_depth=1, batches="1,2", ways="published,lean,linear", tasks="forward,train,sample,decoder gradients", rounds=1, steps=3, device="cpu", out=str(tmp_path/"b.json"))
    rows = list(bench(b))
    assert len(rows) == 2 * 3 * 4 and json.loads((tmp_path/"b.json").read_text())["rows"] == rows
    assert all(r["seconds"] > 0 and r["peak_bytes"] > 0 and r["utilisation"] > 0 for r in rows)
    assert all(r["ratio"] == 1 for r in rows if r["way"] == "published")
    assert len(as_table(rows).splitlines()) == 25
    with pytest.raises(ValueError, match="already exists: choose another, nothing was overwritten"): next(bench(b))


def test_resolutions_have_constant_tokens():
    made = list(cases(BenchConfig(preset="digits", sizes="0,64", batches="2,5")))
    assert [(c.image_size, c.patch, n) for c, n in made] == [(32, 8, 2), (32, 8, 5), (64, 16, 2), (64, 16, 5)]


def test_every_way_runs_every_task():
    ways = ",".join(w for w in WAYS if w != "fused")
    rows = list(measure(BenchConfig(tasks=",".join(TASKS), ways=ways, rounds=1, steps=2, device="cpu"), TINY, 1))
    assert {(r["task"], r["way"]) for r in rows} == {(t, w) for t in TASKS for w in WAYS if w != "fused"}


def test_evaluations_are_counted_as_the_sampler_counts():
    seen = []
    def model(x, t, cond):
        seen.append(len(x))
        return x
    for steps in (1, 10, 11, 50):
        seen.clear()
        sample(model, torch.ones(1, 1, 2, 2), torch.zeros(1), torch.ones(1), steps=steps, guidance_scale=2., guidance_interval=(.1, 1.))
        assert sum(seen) == evaluations(steps)


def test_limits_are_rates():
    limits = roofline(size=256)
    assert 1e8 < limits["operations"] < 1e14 and 1e7 < limits["bytes"] < 1e13


@pytest.mark.parametrize("changes, message", [
    (dict(preset="M/16"), "preset must be one of L/16"), (dict(preset="XXL/16-text"), "ways must be without 'published', the class model's arithmetic, for XXL/16-text"), (dict(ways="ours"), "ways must be of published, .* got 'ours'"),
    (dict(tasks="fly"), "tasks must be of forward, .* got 'fly'"), (dict(batches="two"), "batches must be numbers with commas between, got 'two'"), (dict(sizes="250"), "sizes must be multiples of 16 for XL/16, its patches a side, got 250"),
    (dict(rounds=0), "rounds must be at least 1, got 0"), (dict(precision="fp8"), "precision must be one of auto, fp32, bf16, got 'fp8'")])
def test_settings_that_cannot_be_measured(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message): next(bench(BenchConfig(out=str(tmp_path/"b.json"), **changes)))
    assert not any(tmp_path.iterdir())


def test_the_command(tmp_path):
    code = "from pixnerd.cli import bench_command; bench_command()"
    run = partial(fresh.run, code)
    done = run("--quick", "--tasks", "forward", "--rounds", "1", "--batches", "1", "--device", "cpu", "--out", str(tmp_path/"b.json"))
    assert done.returncode == 0 and "speed ratio" in done.stdout and str(tmp_path/"b.json") in done.stdout, done.stderr
    made = json.loads((tmp_path/"b.json").read_text())
    assert made["settings"]["preset"] == "digits" and {"pixnerd", "torch", "cpu", "threads"} <= set(made["made_by"])
    done = run("--ways", "ours")
    assert done.returncode == 2 and done.stderr.startswith("error: ways must be of") and len(done.stderr.splitlines()) == 1
    assert "--quick" in subprocess.run([sys.executable, "-c", code, "--help"], cwd=ROOT, capture_output=True, text=True).stdout
