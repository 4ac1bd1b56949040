"What probes do to a model: share its memory, hang hooks on a copy, take them away; and opening models of every kind."

import pytest
import torch
from tiny import make_tiny
from torch.testing import assert_close

from pixnerd.probes import RunSettings, _hooks, inspect_model, record_activations, run_code
from pixnerd.run_settings import TrainConfig
from pixnerd.training import train

TINY = make_tiny()


def test_an_inspected_model_shares_memory_and_keeps_modules_apart():
    subject = inspect_model(TINY)
    for (name, ours), theirs in zip(subject.model.named_parameters(), TINY.parameters()):
        assert ours.data_ptr() == theirs.data_ptr(), name
    with pytest.raises(RuntimeError, match="stop"), _hooks(subject.model): raise RuntimeError("stop")
    assert not any(m._forward_pre_hooks for m in subject.model.modules()), "hooks are removed whatever happens"
    assert all(p.requires_grad for p in TINY.parameters())


def test_an_abandoned_recording_leaves_no_hooks():
    subject = inspect_model(TINY)
    recording = record_activations(subject, RunSettings(steps=5))
    next(recording)
    recording.close()
    assert not any(m._forward_pre_hooks for m in subject.model.modules())


def test_a_run_is_opened_by_its_folder(tmp_path):
    for _ in train(TrainConfig(out=str(tmp_path/"run"), steps=2, batch=4)): pass
    subject = inspect_model(tmp_path/"run")
    assert subject.source == repr(str(tmp_path/"run/checkpoints/step-000002"))
    with pytest.raises((FileNotFoundError, ValueError)): inspect_model(tmp_path)


def test_the_code_of_a_run_gives_its_states(tmp_path):
    subject = inspect_model(TINY.save_pretrained(tmp_path/"tiny"))
    s = RunSettings(classes="0-2, 7", method="adams", order=3, steps=4, seed=2, guidance_interval=(.1, 1.))
    for canvas in (None, (48, 32)):
        names = {}
        exec(run_code(subject, s, canvas=canvas), names)
        assert len(names["steps"]) == 5 and names["steps"][-1].x.shape == (4, 1, *(canvas or (32, 32)))
        if canvas is None: assert_close(names["steps"][-1].x, list(subject.run(s))[-1].x, atol=1e-5, rtol=0)


def test_classes_by_name():
    subject = inspect_model(make_tiny(num_classes=3, class_names=("cat", "dog", "owl")))
    assert subject.condition("owl, cat")[0].tolist() == [2, 0] and subject.count("owl, cat, 1") == 3
    with pytest.raises(ValueError, match="unknown class 'cow'"): subject.condition("cow")
    assert torch.equal(subject.condition("dog")[1], torch.tensor([3]))
