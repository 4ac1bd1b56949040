"Benchmarks: the baseline is the published arithmetic, memory is counted exactly, and a run leaves its file."

import json
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

import fresh
from pixnerd.benchmarks import (
    TASKS, VARIANTS, BenchConfig, Variant, _compiled, _ENDINGS, _gradients, _held_bytes, _make_batch, _measure,
    _peak_bytes, _published_sample, _task_operations, bench, bench_table, training_memory)
from pixnerd.checkpoints import from_official
from pixnerd.costs import operations
from pixnerd.model import PRESETS, PixNerd
from pixnerd.reference import randomise_last_layer, published_forward
from pixnerd.samplers import sample
from test_costs import TINY, TINY_TEXT
from test_published import load, weights_of

ROOT = Path(__file__).resolve().parent.parent
CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["c2i_tiny", "c2i_gray_nonsquare"])
def test_the_baseline_equals_the_reference(name):
    tensors, about = load(name)
    model = from_official(weights_of(tensors), json.loads(about["config"]))
    with torch.no_grad():
        output = published_forward(model, tensors["input.x"], tensors["input.t"], tensors["input.y"])
    assert (output - tensors["output"]).abs().max() <= 1e-5 * max(1, tensors["output"].abs().max().item())


@pytest.mark.parametrize("changes", [{}, dict(field_depth=3, field_ratio=1), dict(normalise=("W1",), output_norm=False),
                                     dict(noisy_pixels=True, encoding="sincos")], ids=str)
def test_the_baseline_has_the_models_gradients(changes):
    torch.manual_seed(0)
    model, (x, _, t, cond) = randomise_last_layer(PixNerd(replace(TINY, **changes))), _make_batch(TINY, 3)
    runs = (lambda: published_forward(model, x, t, cond), lambda: model(x, t, cond))
    theirs, ours = (torch.autograd.grad(run().square().mean(), model.parameters()) for run in runs)
    for a, b in zip(theirs, ours): assert (a - b).abs().max() <= 1e-5 * a.abs().max().clamp_min(.1)


def test_the_baseline_samples_as_we_do():
    torch.manual_seed(0)
    model, (_, noise, _, cond) = randomise_last_layer(PixNerd(TINY)).eval(), _make_batch(TINY, 2)
    null = torch.full_like(cond, 10)
    ours = sample(model, noise, cond, null, steps=7, guidance_scale=3.5, guidance_interval=(.1, 1.))
    assert_close(_published_sample(model, noise, cond, null, steps=7), ours, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["lean", "plain", "linear", "off"])
def test_counting_on_fake_tensors_is_counting(name):
    "In the precision where both compute alike, the peak without numbers is the peak with them."
    batch, variant = _make_batch(TINY, 2), Variant(name, TINY, CPU, torch.bfloat16)
    _gradients(variant, batch)
    variant.model.zero_grad(set_to_none=True)
    real = _peak_bytes(lambda: _gradients(variant, batch), CPU)
    fake = training_memory(TINY, name, 2)["peak"]
    assert abs(fake - real) <= .02 * real, (fake, real)


def test_the_lean_field_saves_what_it_says():
    "At the published shape of the field, training memory is at most half of the published arithmetic's."
    config = replace(PRESETS["XL/16"].config, depth=2, field_depth=2, width=192, heads=4)
    peaks = {}
    for name in ("published", "lean"):
        variant, batch = Variant(name, config, CPU), _make_batch(config, 1)
        _gradients(variant, batch)
        peaks[name] = _peak_bytes(lambda: _gradients(variant, batch), CPU)
    assert peaks["lean"] <= .5 * peaks["published"], peaks


def test_a_text_model_is_measured_too():
    c = replace(TINY_TEXT, depth=1)
    b = BenchConfig(variants="plain,lean,linear", tasks="forward,train,sample", rounds=1, steps=2, device="cpu")
    rows = list(_measure(b, c, 1))
    assert len(rows) == 9 and all(r["seconds"] > 0 for r in rows)
    assert training_memory(c, "lean", 2)["peak"] < training_memory(c, "plain", 2)["peak"]


def test_compiled_and_graphed_are_variants():
    "What a compiler makes of them is its own business: here it is told to do nothing."
    names = {f"lean {end}".strip() for end in _ENDINGS}
    assert {Variant(name, TINY, CPU).name for name in names} == names == {"lean", "lean compiled", "lean graphed"}
    kept = torch.zeros(3)
    def run(x): return kept.copy_(x)                                   # as a graph does: into the same place each time
    with torch.compiler.set_stance("force_eager"):
        fast = _compiled(run, graphs=True)
        first, second = fast(torch.ones(3)), fast(2 * torch.ones(3))
    assert first.tolist() == [1] * 3 and second.tolist() == [2] * 3
    with pytest.raises(ValueError, match="with or without ' compiled' or ' graphed', got 'lean fast'"):
        Variant("lean fast", TINY, CPU)


def test_what_cannot_fit_is_refused_before_anything_is_built(tmp_path):
    c = PRESETS["XL/16"].config
    one = _held_bytes(c, ["lean"], ["forward"])
    assert one == 4 * 700_589_219 and _held_bytes(c, ["lean", "plain compiled"], ["train"]) == 5 * one
    assert _held_bytes(c, ["published", "lean"], ["gradients", "train"]) == 8 * one
    huge = BenchConfig(preset="XL/16", depth=1000, variants="published,lean,linear,off", device="cpu",
                       out=str(tmp_path/"b.json"))
    message = ("needs .* GB of memory before the first image, this machine has .*: "
               "choose a smaller preset, fewer variants or tasks, or --quick")
    with pytest.raises(ValueError, match=message): next(bench(huge))
    assert not any(tmp_path.iterdir())


def test_a_benchmark_leaves_its_file(tmp_path):
    out = tmp_path/"b.json"
    b = BenchConfig(preset="digits", depth=1, field_depth=1, batches="1,2", variants="published,lean,linear",
                    tasks="forward,train,sample,decoder gradients", rounds=1, steps=3, device="cpu", out=str(out))
    rows = list(bench(b))
    assert len(rows) == b.row_count == 2 * 3 * 4 and json.loads(out.read_text())["rows"] == rows
    assert all(r["seconds"] > 0 and r["peak_bytes"] > 0 and r["utilisation"] > 0 for r in rows)
    assert all(r["ratio"] == 1 for r in rows if r["variant"] == "published")
    assert len(bench_table(rows).splitlines()) == 25
    with pytest.raises(ValueError, match="already exists: choose another, nothing was overwritten"): next(bench(b))


def test_resolutions_have_constant_tokens():
    made = BenchConfig(preset="digits", sizes="0,64", batches="2,5").cases()
    assert [(c.image_size, c.patch, n) for c, n in made] == [(32, 8, 2), (32, 8, 5), (64, 16, 2), (64, 16, 5)]


def test_every_variant_runs_every_task():
    names = [name for name in VARIANTS if name != "fused"]
    b = BenchConfig(tasks=",".join(TASKS), variants=",".join(names), rounds=1, steps=2, device="cpu")
    rows = list(_measure(b, TINY, 1))
    assert {(r["task"], r["variant"]) for r in rows} == {(task, name) for task in TASKS for name in names}


def test_evaluations_are_counted_as_the_sampler_counts():
    seen = []
    def model(x, t, cond):
        seen.append(len(x))
        return x
    one = sum(operations(TINY).values())
    noise, cond, null = torch.ones(1, 1, 2, 2), torch.zeros(1), torch.ones(1)
    for steps in (1, 10, 11, 50):
        seen.clear()
        sample(model, noise, cond, null, steps=steps, guidance_scale=2., guidance_interval=(.1, 1.))
        assert sum(seen) == _task_operations("sample", TINY, steps) / one


@pytest.mark.parametrize("changes, message", [
    (dict(preset="M/16"), "preset must be one of digits, .* got 'M/16'"),
    (dict(preset="XXL/16-text"), "variants must be without 'published', the class model's arithmetic, for XXL/16-text"),
    (dict(variants="ours"), "variants must be of published, .* got 'ours'"),
    (dict(tasks="fly"), "tasks must be of forward, .* got 'fly'"),
    (dict(batches="two"), "batches must be numbers from 0 with commas between, got 'two'"),
    (dict(batches="2,-1"), "batches must be numbers from 0 with commas between, got '-1'"),
    (dict(sizes="250"), "sizes must be multiples of 16 for XL/16, its patches a side, got 250"),
    (dict(rounds=0), "rounds must be at least 1, got 0"),
    (dict(precision="fp8"), "precision must be one of auto, fp32, bf16, got 'fp8'")])
def test_settings_that_cannot_be_measured(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message): BenchConfig(out=str(tmp_path/"b.json"), **changes)


def test_the_command(tmp_path):
    code = "from pixnerd.cli import bench_command; bench_command()"
    run, out = partial(fresh.run, code), str(tmp_path/"b.json")
    done = run("--quick", "--tasks", "forward", "--rounds", "1", "--batches", "1", "--device", "cpu", "--out", out)
    assert done.returncode == 0 and "speed ratio" in done.stdout and out in done.stdout, done.stderr
    made = json.loads(Path(out).read_text())
    assert made["settings"]["preset"] == "digits" and {"pixnerd", "torch", "cpu", "threads"} <= set(made["made_by"])
    done = run("--variants", "ours")
    assert done.returncode == 2 and done.stderr.startswith("error: variants must be of")
    assert len(done.stderr.splitlines()) == 1
    shown = subprocess.run([sys.executable, "-c", code, "--help"], cwd=ROOT, capture_output=True, text=True).stdout
    assert "--quick" in shown
