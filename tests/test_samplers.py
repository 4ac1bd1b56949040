"Sampling: the reference trajectories, what guidance costs, and independence of the batch."

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from pixnerd.model import PRESETS
from pixnerd.samplers import (METHODS, RECOMMENDED, RECOMMENDED_TEXT, SamplerSettings, Solver, Step, _adams_weights,
                              denoise, euler, labelled_solvers, make_noise, recommended, sample, step_times)

with safe_open(Path(__file__).parent/"reference"/"samplers.safetensors", "pt") as file:
    REFERENCE, CASES = {key: file.get_tensor(key) for key in file.keys()}, json.loads(file.metadata()["cases"])
BIAS = torch.tensor([.5, -.25, .8, 0.], dtype=torch.float64)


def known_velocity(x, t, cond):
    "The field the reference trajectories were computed with (see the reference's README)."
    t, bias = t.view(-1, 1, 1, 1), BIAS.to(x.dtype)[cond].view(-1, 1, 1, 1)
    return torch.tanh(.7 * x + bias) * (1 + t) - .3 * x + .2 * torch.sin(3 * t)


def identity(x, t, cond): return x


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['index']}-{c['sampler']}")
def test_trajectory_equals_the_reference(case):
    interval = (case.get("guidance_interval_min", 0.), case.get("guidance_interval_max", 1.))
    if case["sampler"] == "heun": interval = (-1., 2.)      # the reference's Heun guides at every time, t = 0 included
    how = SamplerSettings(case["sampler"], case["num_steps"], case.get("order", 2), case["guidance"], interval,
                          case.get("timeshift", 1.))
    states = sample(known_velocity, REFERENCE["noise"], REFERENCE["condition"], REFERENCE["uncondition"], how,
                    trajectory=True)
    times = torch.tensor(step_times(how.steps, how.time_shift), dtype=torch.float64)
    assert torch.allclose(times, REFERENCE[f"{case['index']}.timesteps"], atol=1e-12, rtol=0)
    assert (states - REFERENCE[f"{case['index']}.trajectory"]).abs().max() < 1e-6


@given(past=st.lists(st.floats(0, .7), min_size=1, max_size=4, unique_by=lambda t: round(t * 40)),
       step=st.floats(.05, .25))
@settings(max_examples=60, deadline=None)
def test_adams_of_order_k_integrates_polynomials_of_degree_below_k_exactly(past, step):
    past = sorted(past, reverse=True)
    after, weights = past[0] + step, _adams_weights(past, past[0] + step)
    for degree in range(len(past)):
        exact = (after ** (degree + 1) - past[0] ** (degree + 1)) / (degree + 1)
        assert abs(sum(w * t ** degree for w, t in zip(weights, past)) - exact) < 1e-6 * max(map(abs, weights))


def test_heun_integrates_lines_exactly_but_for_its_last_step():
    def line(x, t, cond): return t.view(-1, 1).expand_as(x)
    states = sample(line, torch.zeros(1, 1).double(), torch.zeros(1), method="heun", steps=10, trajectory=True)
    assert torch.allclose(states[:10, 0, 0], torch.linspace(0, .9, 10).double() ** 2 / 2)


def test_fresh_noise_is_fixed_by_seed_and_index():
    def draw(which, **changes):
        noise, cond = make_noise(which, (1, 4, 4)), torch.zeros(len(which), dtype=torch.long)
        return sample(known_velocity, noise, cond, method="sde", steps=6, indices=which, **changes)
    assert torch.equal(draw([0, 1, 2])[1:2], draw([1])) and not torch.equal(draw([1]), draw([1], seed=1))
    assert torch.equal(draw([1], seed=1), draw([1], seed=1))


@pytest.mark.parametrize("method, calls", [("euler", 8), ("heun", 15), ("adams", 8), ("sde", 8)])
def test_evaluations_of_each_method(method, calls):
    assert SamplerSettings(method, steps=8).evaluations == calls


@pytest.mark.parametrize("name", METHODS)
@given(steps=st.integers(1, 12), low=st.floats(-1, 1), high=st.floats(0, 2), scale=st.sampled_from([1., 2.5]))
@settings(max_examples=15, deadline=None)
def test_every_solver_costs_what_its_record_says(name, steps, low, high, scale):
    how = SamplerSettings(name, steps, guidance_scale=scale, guidance_interval=(min(low, high), max(low, high)))
    sizes = []
    def model(x, t, cond):
        sizes.append(len(x))
        return x
    sample(model, torch.ones(1, 1, 2, 2), torch.zeros(1), torch.ones(1), how)
    assert (len(sizes), sum(sizes)) == (how.evaluations, how.model_evaluations)


@given(steps=st.integers(1, 12), low=st.floats(0, 1), high=st.floats(0, 1), scale=st.sampled_from([1., 2.5]))
@settings(max_examples=40, deadline=None)
def test_the_unconditional_pass_runs_only_where_guidance_does(steps, low, high, scale):
    low, high, sizes = min(low, high), max(low, high), []
    def model(x, t, cond):
        sizes.append(len(x))
        return x
    how = SamplerSettings(steps=steps, guidance_scale=scale, guidance_interval=(low, high))
    sample(model, torch.ones(2, 1, 1, 1), torch.zeros(2), torch.ones(2), how)
    assert sizes == [4 if scale != 1 and low < t < high else 2 for t in step_times(steps)[:-1]]


def test_an_interval_beyond_the_ends_guides_at_every_time():
    sizes = []
    def model(x, t, cond):
        sizes.append(len(x))
        return x
    how = SamplerSettings("heun", steps=3, guidance_scale=2., guidance_interval=(-1, 2))
    sample(model, torch.ones(1, 1), torch.zeros(1), torch.ones(1), how)
    assert sizes == [2] * 5 and replace(how, guidance_interval=(0, 1)).model_evaluations == 9


def test_an_image_does_not_depend_on_its_batch():
    cond = torch.tensor([0, 1, 2, 0, 1, 2])
    def draw(which):
        null = torch.full_like(cond[which], 3)
        noise = make_noise(which, (1, 4, 4), seed=3)
        return sample(known_velocity, noise, cond[which], null, steps=7, guidance_scale=2.)
    together = draw(list(range(6)))
    assert torch.equal(together[4:5], draw([4])) and torch.equal(together[[5, 1]], draw([5, 1]))
    assert not torch.equal(together[0], together[3])


def test_steps_carry_exact_previews():
    "On a straight path every preview is the end."
    target, noise = torch.randn(2, 1, 4, 4), torch.randn(2, 1, 4, 4)
    steps = list(denoise(lambda x, t, cond: target - noise, noise, torch.zeros(2), steps=5))
    assert [s.i for s in steps] == [0, 1, 2, 3, 4, 5] and steps[-1].t == 1 and steps[-1].velocity is None
    for s in steps: assert torch.allclose(s.preview, target, atol=1e-5)


def test_sampling_keeps_no_graph_and_no_training_mode():
    weight = torch.nn.Parameter(torch.ones(()))
    x = sample(lambda x, t, cond: weight * x, torch.ones(1, 1, 2, 2), torch.zeros(1), steps=3)
    assert not x.requires_grad


def test_a_solver_that_is_entered_is_a_choice_everywhere(monkeypatch):
    def lazy(velocity, x, times):
        v = velocity(x, times[0])
        yield Step(0, times[0], x, v)
        yield Step(1, 1., x + v)
    monkeypatch.setitem(METHODS, "lazy", Solver(lazy, lambda steps: 1))
    assert labelled_solvers()["Lazy"] == SamplerSettings("lazy")
    x = torch.ones(1, 1)
    assert torch.equal(sample(identity, x, torch.zeros(1), method="lazy"), 2 * x)
    with pytest.raises(ValueError, match="method must be one of euler, .*lazy, got 'lasy'"):
        SamplerSettings("lasy")


@pytest.mark.parametrize("record, message", [
    (Solver(euler), "'mine' is incomplete.*evaluations"), (Solver(evaluations=int), "'mine' is incomplete.*solve"),
    (euler, "'mine' must be"), (lambda order, fresh: euler, "'mine' must be")])
def test_an_incomplete_solver_is_refused_by_name_where_it_is_entered(record, message):
    with pytest.raises(ValueError, match=message): METHODS["mine"] = record
    assert "mine" not in METHODS


def test_labels_name_every_solver_and_order():
    assert {"Euler", "Heun", "Adams 2", "Adams 3", "Adams 4", "SDE"} <= labelled_solvers().keys()
    assert "Adams 1" not in labelled_solvers()              # that is Euler's method
    assert "SDE" not in labelled_solvers(random=False)


@pytest.mark.parametrize("bad, message", [
    (dict(noise=torch.full((2, 1, 2, 2), torch.inf)), "noise must be finite"),
    (dict(cond=torch.zeros(3)), "cond must have one entry an image: got 3 for 2"),
    (dict(null_cond=torch.zeros(2, 5)), r"null_cond must have cond's shape \(2,\), got \(2, 5\)"),
    (dict(steps=-1), "steps must be a whole number from 1 to 100000, got -1"),
    (dict(noise=torch.zeros(2, 1, 2, 2).int()), "noise must be float"),
    (dict(cond=[0, 1]), "cond must be a tensor, got list"),
    (dict(steps=2.5), "steps must be a whole number"),
    (dict(method="sde", indices=[0]), "indices must have one number an image: got 1 for 2 images"),
    (dict(order=5), "order must be 1 to 4, got 5"),
    (dict(method="ddim"), "method must be one of euler.*, got 'ddim'"),
    (dict(guidance_scale=3., null_cond=None), "null_cond is needed for guidance_scale 3.0"),
    (dict(guidance_scale=torch.inf), "guidance_scale must be a finite number, got inf"),
    (dict(guidance_interval=(1.5, .5)), "guidance_interval must be two times, the lower first, got 1.5, 0.5"),
    (dict(guidance_interval=(torch.nan, 1.)), "guidance_interval must be two times, the lower first, got nan, 1.0"),
    (dict(guidance_interval=(.5,)), "guidance_interval must be two times, the lower first, got 0.5"),
    (dict(time_shift=-2.), "time_shift must be greater than 0 and finite, got -2.0"),
    (dict(seed=-1), "seed must be whole, from 0 to"),
    (dict(guidance=3.), "unknown sampler setting 'guidance': must be one of method, steps")])
def test_bad_requests_are_refused_at_once(bad, message):
    request = dict(noise=torch.zeros(2, 1, 2, 2), cond=torch.zeros(2), null_cond=torch.zeros(2)) | bad
    def never(*_): raise AssertionError("the model was called")
    with pytest.raises(ValueError, match=message): denoise(never, **request)


def test_class_ids_are_checked_against_the_model():
    from pixnerd import PixNerd
    model, noise = PixNerd.from_preset("digits"), torch.zeros(2, 1, 32, 32)
    for cond, message in [(torch.tensor([0, 11]), "cond must hold class ids 0 to 9"),
                          (torch.tensor([-1, 0]), "cond must hold class ids"),
                          (torch.zeros(2), "cond must be .B,. int64 class ids, got torch.float32")]:
        with pytest.raises(ValueError, match=message): denoise(model, noise, cond)
    with pytest.raises(ValueError, match="null_cond must hold class ids 0 to 9 .null class 10., got 11 to 11"):
        denoise(model, noise, torch.tensor([0, 1]), torch.tensor([11, 11]), guidance_scale=2.)


@pytest.mark.parametrize("bad", [dict(seed=-1), dict(seed=2 ** 63), dict(seed=1.5), dict(indices=[-1]),
                                 dict(indices=[.5]), dict(moment=-1)])
def test_noise_has_whole_numbers_for_a_name(bad):
    with pytest.raises(ValueError, match="must be whole, from 0 to"):
        make_noise(**dict(indices=[0], shape=(1, 2, 2)) | bad)


def test_large_seeds_do_not_meet():
    assert not torch.equal(make_noise([0], (1, 2, 2), 2 ** 63 - 1), make_noise([0], (1, 2, 2), 2 ** 63 - 2))
    assert make_noise([], (1, 2, 2)).shape == (0, 1, 2, 2)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("size", [256, 512])
def test_a_published_model_is_sampled_as_published(preset, size):
    config = PRESETS[preset].config
    paper = SamplerSettings(method="adams", order=2, steps=50, guidance_scale=3.5, guidance_interval=(.1, 1.))
    kinds = {1000: paper, 0: RECOMMENDED_TEXT, 10: RECOMMENDED}
    assert recommended(config.changed(image_size=size)) == kinds[config.num_classes]


@pytest.mark.parametrize("preset", ["digits", "scenes", "L/16"])
def test_a_null_that_was_never_trained_is_not_guided_from(preset):
    config = PRESETS[preset].config
    assert recommended(config.changed(null_class=False)) == replace(recommended(config), guidance_scale=1.)


def test_guidance_without_a_trained_null_is_warned_of_once(recwarn):
    from pixnerd import PixNerd
    model = PixNerd.from_preset("digits", depth=1, field_width=16, null_class=False)
    noise, ids, null = torch.zeros(1, 1, 32, 32), torch.tensor([0]), torch.tensor([10])
    sample(model, noise, ids, null, recommended(model.config), steps=2)
    assert not recwarn.list
    for _ in range(2): sample(model, noise, ids, null, steps=2, guidance_scale=2.)
    sample(model.with_config(null_class=True), noise, ids, null, steps=2, guidance_scale=2.)
    assert len(recwarn.list) == 1 and "null class was never trained (label_drop 0)" in str(recwarn.pop(UserWarning).message)
