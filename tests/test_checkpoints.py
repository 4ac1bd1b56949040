"Loading weights: whole, strict, and never by running what a file says."

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from pixnerd import PRESETS, PixNerd, from_official, from_pretrained, to_official
from pixnerd.checkpoints import SHIPPED, config_from_official, current_name, read_arguments, read_config
from pixnerd.records import write_whole

TOY = dict(in_channels=3, patch_size=8, num_groups=4, hidden_size=64, hidden_size_x=16, nerf_mlpratio=4, num_blocks=4,
           num_cond_blocks=3, num_classes=10)
TOY_TEXT = dict(in_channels=3, patch_size=8, num_groups=4, hidden_size=64, txt_embed_dim=24, txt_max_length=7,
                num_text_blocks=2, decoder_hidden_size=16, num_encoder_blocks=2, num_decoder_blocks=2)


@pytest.fixture(scope="module", params=[TOY, TOY_TEXT], ids=["class", "text"])
def model(request) -> PixNerd:
    "A published model at toy size, with weights that say something."
    torch.manual_seed(0)
    model = PixNerd(config_from_official(request.param)).eval().requires_grad_(False)
    for w in model.parameters(): w.normal_(std=.05)
    return model


def lightning(model: PixNerd, path: Path, **more) -> Path:
    "A checkpoint as Lightning writes them: averaged and raw weights, a projection for the alignment, an optimiser."
    state = {"diffusion_trainer.proj.0.weight": torch.ones(3)}
    for name, w in to_official(model).items():
        state[f"ema_denoiser.{name}"] = w
        state[f"denoiser.{name}"] = torch.zeros_like(w)
    torch.save({"state_dict": state, "epoch": 1, "optimizer_states": [{"step": torch.tensor(1)}]} | more, path)
    return path


def same(a: PixNerd, b: PixNerd) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return a.config == b.config and all(torch.equal(x, y) for x, y in pairs)


# --- published files ---

def test_lightning_files_load_averaged_by_default(model, tmp_path):
    path = lightning(model, tmp_path/"model.ckpt")
    assert same(from_pretrained(path), model)
    raw = from_pretrained(path, averaged=False)
    assert raw.config == model.config and not any(w.any() for w in raw.state_dict().values())
    assert {w.dtype for w in from_pretrained(path, dtype=torch.bfloat16).state_dict().values()} == {torch.bfloat16}


def test_arguments_are_read_off_the_shapes(model):
    assert config_from_official(read_arguments(to_official(model))) == model.config
    assert same(from_official(to_official(model)), model)


@given(text=st.booleans(), depth=st.integers(1, 3), field_depth=st.integers(1, 3), heads=st.sampled_from([1, 2, 4]),
       channels=st.integers(1, 4), patch=st.sampled_from([1, 2, 5, 8]), ratio=st.integers(1, 3),
       classes=st.integers(1, 12))
@settings(max_examples=25, deadline=None)
def test_any_published_shape_goes_there_and_back(text, depth, field_depth, heads, channels, patch, ratio, classes):
    arguments = dict(in_channels=channels, patch_size=patch, num_groups=heads, hidden_size=16)
    if text: arguments |= dict(txt_embed_dim=6, txt_max_length=3, num_text_blocks=depth, decoder_hidden_size=8,
                               num_encoder_blocks=depth, num_decoder_blocks=field_depth)
    else: arguments |= dict(hidden_size_x=8, nerf_mlpratio=ratio, num_blocks=depth + field_depth, num_cond_blocks=depth,
                            num_classes=classes)
    model = PixNerd(config_from_official(arguments)).eval()
    assert read_arguments(to_official(model)) == arguments
    assert same(from_official(to_official(model)), model)


def test_text_longer_than_the_model_takes_is_refused():
    model = PixNerd(config_from_official(TOY_TEXT)).eval()
    x, t = torch.randn(1, 3, 16, 16), torch.rand(1)
    assert model(x, t, torch.randn(1, 4, 24)).shape == x.shape
    message = "cond has 8 text tokens, the model takes at most 7"
    with pytest.raises(ValueError, match=message): model(x, t, torch.randn(1, 8, 24))


class Harmful:
    def __reduce__(self): return os.system, ("touch harmed",)


def test_a_file_that_wants_to_run_code_is_refused_by_name(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = lightning(model, tmp_path/"bad.ckpt", hyper_parameters=Harmful())
    message = r"bad.ckpt was refused: it wants to run code \(\w+.system\), and weights need none"
    with pytest.raises(ValueError, match=message): from_pretrained(path)
    assert not (tmp_path/"harmed").exists()


def test_what_is_no_checkpoint_is_said_in_a_line(model, tmp_path):
    whole = lightning(model, tmp_path/"whole.ckpt").read_bytes()
    for name, data, message in [
        ("cut.ckpt", whole[:len(whole) // 2], "cut.ckpt is damaged"),
        ("empty.ckpt", b"", "empty.ckpt is damaged"),
        ("text.ckpt", b"hello", "text.ckpt is damaged, or no checkpoint"),
        ("cat.png", b"\x89PNG\r\n", "cat.png is no checkpoint: it is a picture"),
    ]:
        (tmp_path/name).write_bytes(data)
        with pytest.raises(ValueError, match=message): from_pretrained(tmp_path/name)
    part = {"state_dict": {"ema_denoiser.blocks.0.weight": torch.ones(1)}}
    torch.save(part, tmp_path/"part.ckpt")
    with pytest.raises(ValueError, match="not the weights of a published PixNerd"):
        from_pretrained(tmp_path/"part.ckpt")


@pytest.mark.parametrize("content", [
    {"state_dict": {"other.weight": torch.ones(1)}}, {"something": 1}, torch.ones(2), {"state_dict": [1]},
    {"state_dict": None}, {"state_dict": {1: torch.zeros(1)}}], ids=str)
def test_a_file_without_the_tensors_says_so(content, tmp_path):
    torch.save(content, tmp_path/"other.ckpt")
    with pytest.raises(ValueError, match="holds no tensors named ema_denoiser"): from_pretrained(tmp_path/"other.ckpt")


@pytest.mark.parametrize("name, value", [
    ("final_layer.linear.weight", torch.zeros(())), ("final_layer.linear.weight", torch.zeros(0, 0)),
    ("s_embedder.proj.weight", torch.zeros(3)), ("s_embedder.proj.weight", torch.zeros(0, 192)),
    ("blocks.0.attn.q_norm.weight", torch.zeros(0)), ("blocks.0.attn.q_norm.weight", torch.zeros(())),
    ("y_embedder.embedding_table.weight", torch.zeros(())), ("final_layer.linear.weight", 5), ("y_pos_embedding", 5),
    ("final_layer.linear.bias", torch.zeros(3).int()), ("final_layer.linear.bias", "three"),
    ("y_embedder.embedding_table.weight", torch.zeros(1, 1).expand(10 ** 6, 64)),
    ("final_layer.linear.bias", torch.zeros(3).to_sparse()), ("final_layer.linear.bias", torch.zeros(3).to(torch.float8_e4m3fn))], ids=str)
def test_tensors_of_odd_shapes_and_types_are_refused_in_a_line(name, value, tmp_path):
    model = PixNerd(config_from_official(TOY))
    weights = {f"ema_denoiser.{n}": w for n, w in to_official(model).items()} | {f"ema_denoiser.{name}": value}
    torch.save({"state_dict": weights}, tmp_path/"odd.ckpt")
    with pytest.raises(ValueError): from_pretrained(tmp_path/"odd.ckpt")


WRAPPED = { # what is said to be left off, and how a wrapper saves
    "compiled": ("_orig_mod", lambda w: {"state_dict": {f"ema_denoiser._orig_mod.{n}": v for n, v in w.items()}}),
    "parallel": ("module", lambda w: {"state_dict": {f"module.ema_denoiser.{n}": v for n, v in w.items()}}),
    "blocks": ("_orig_mod", lambda w: {n.replace(".attn.", "._orig_mod.attn."): v for n, v in w.items()}),
    "trainer": ("model", lambda w: {"model": {"state_dict": {f"model.{n}": v for n, v in w.items()}}, "epoch": 3}),
    "ema": ("", lambda w: {"state_dict": {n: 0 * v for n, v in w.items()}, "ema": dict(w)}),
    "ema_state_dict": ("module", lambda w: {"model": {n: 0 * v for n, v in w.items()},
                                            "ema_state_dict": {"module": dict(w)}}),
    "plain": ("", dict),
}


@pytest.mark.parametrize("said, wrap", WRAPPED.values(), ids=WRAPPED)
def test_wrapped_weights_are_unwrapped_and_it_is_said(said, wrap, model, tmp_path, caplog):
    torch.save(wrap(to_official(model)), tmp_path/"wrapped.ckpt")
    assert same(from_pretrained(tmp_path/"wrapped.ckpt"), model)
    assert caplog.messages == ([f"{tmp_path/'wrapped.ckpt'}: {said} left off the names"] if said else [])


@given(st.lists(st.sampled_from(["_orig_mod", "module", "model"]), max_size=4),
       st.lists(st.sampled_from(["_orig_mod", "module", "model"]), max_size=4), st.sampled_from(["", "ema_denoiser."]))
@settings(max_examples=15, deadline=None)
def test_any_nesting_of_wrappers(tmp_path_factory, around, within, front):
    model, path = PixNerd(config_from_official(TOY)).eval(), tmp_path_factory.mktemp("wrapped")/"a.ckpt"
    inside = "".join(f"{part}." for part in within)
    saved = {f"{front}{inside}{name}": w for name, w in to_official(model).items()}
    for part in around: saved = {part: saved}
    torch.save(saved, path)
    assert same(from_pretrained(path), model)


def test_two_sets_of_weights_are_not_chosen_between(tmp_path):
    weights = to_official(PixNerd(config_from_official(TOY)))
    for saved, message in [({"model": dict(weights), "state_dict": dict(weights)}, "holds the same tensor twice: "),
                           ({"ema": dict(weights), "ema_denoiser": dict(weights)}, "holds several sets of weights: "),
                           ({"denoiser": dict(weights)}, "holds no tensors named ema_denoiser")]:
        torch.save(saved, tmp_path/"two.ckpt")
        with pytest.raises(ValueError, match=message): from_pretrained(tmp_path/"two.ckpt")


def test_published_weights_as_safetensors(model, tmp_path):
    save_file(to_official(model), tmp_path/"published.safetensors")
    assert same(from_pretrained(tmp_path/"published.safetensors"), model)
    (tmp_path/"cut.safetensors").write_bytes((tmp_path/"published.safetensors").read_bytes()[:99])
    with pytest.raises(ValueError, match="cut.safetensors is damaged"): from_pretrained(tmp_path/"cut.safetensors")


@pytest.mark.parametrize("changes, field", [
    (dict(encoding="sincos"), "encoding 'sincos'"), (dict(head="linear"), "head 'linear'"),
    (dict(hidden=40), "hidden_width 40"), (dict(normalise=()), "normalise")])
def test_models_the_published_code_cannot_express_are_not_translated(changes, field):
    model = PixNerd.from_preset("digits", **changes)
    with pytest.raises(ValueError, match=f"the published code cannot express {field}"): to_official(model)


# --- folders ---

def test_folders_come_back(model, tmp_path):
    model.save_pretrained(tmp_path/"a")
    assert same(from_pretrained(tmp_path/"a"), model)
    model.save_pretrained(tmp_path/"half", dtype=torch.float16)
    half = from_pretrained(tmp_path/"half", dtype=None)
    assert {w.dtype for w in half.state_dict().values()} == {torch.float16}
    files = sorted((tmp_path/"a").iterdir())
    assert [path.name for path in files] == ["config.json", "model.safetensors"]
    assert len({path.stat().st_mode & 0o777 for path in files}) == 1


def test_the_same_model_is_the_same_bytes(model, tmp_path):
    about = {f"word {i}": f"wört {i} \"quoted\"\n" for i in range(9)}
    files = {(model.save_pretrained(tmp_path/"a", metadata=about)/"model.safetensors").read_bytes() for _ in range(6)}
    assert len(files) == 1 and same(from_pretrained(tmp_path/"a"), model)


def test_a_folder_of_a_wrapped_model_loads(model, tmp_path, caplog):
    folder = model.save_pretrained(tmp_path/"model")
    save_file({f"module._orig_mod.{n}": w for n, w in model.state_dict().items()}, folder/"model.safetensors")
    assert same(from_pretrained(folder), model) and "_orig_mod, module left off the names" in caplog.text
    twice = model.state_dict() | {"module.patch_embedding.bias": torch.zeros(64)}
    save_file(twice, folder/"model.safetensors")
    with pytest.raises(ValueError, match="the same tensor twice: .*patch_embedding.bias"): from_pretrained(folder)


def test_a_file_of_a_checkpoint_stands_for_its_folder_and_a_run_for_its_newest(model, tmp_path):
    run = tmp_path/"run"
    for step in (2, 9, 10): model.with_config(off_grid="interpolate").save_pretrained(run/"checkpoints"/f"step-{step}")
    newest = model.save_pretrained(run/"checkpoints"/"step-11")
    model.save_pretrained(run/"checkpoints"/"step-12-copy")
    (run/"config.json").write_text('{"preset": "digits"}')
    for path in (newest, newest/"model.safetensors", newest/"config.json", run/"checkpoints", run):
        assert same(from_pretrained(path), model)
    torch.save({"step": 11, "model": model.state_dict()}, newest/"training.pt")
    torch.save({"step": 11, "model": model.state_dict()}, tmp_path/"moved.pt")
    shutil.copy(newest/"model.safetensors", tmp_path/"model.safetensors")
    for path, message in [(newest/"training.pt", "is the state of a training, and no model: give its folder"),
                          (tmp_path/"moved.pt", "holds weights without their configuration: put the model"),
                          (tmp_path/"model.safetensors", "holds weights without their configuration: put the model")]:
        with pytest.raises(ValueError, match=message): from_pretrained(path)
    shutil.rmtree(run/"checkpoints")
    (run/"checkpoints").mkdir()
    for path in (run, run/"checkpoints"):
        with pytest.raises(ValueError, match="run is a run without a checkpoint yet"): from_pretrained(path)


@pytest.mark.parametrize("name, wrap", {
    "last.ckpt": lambda w: {"state_dict": {f"model.{n}": v for n, v in w.items()}},
    "last.pth": lambda w: {"state_dict": {n: 0 * v for n, v in w.items()}, "ema": dict(w)},
    "pytorch_model.bin": lambda w: {n.replace("weight_generator", "writer"): v for n, v in w.items()},
    "diffusion_pytorch_model.safetensors": dict}.items(), ids=("last.ckpt", "last.pth", "bin", "safetensors"))
def test_weights_beside_their_configuration_load_under_any_name(name, wrap, model, tmp_path, caplog):
    folder = model.save_pretrained(tmp_path/"model")
    (folder/"model.safetensors").unlink()
    (save_file if name.endswith("safetensors") else torch.save)(wrap(model.state_dict()), folder/name)
    assert same(from_pretrained(folder/name), model)
    assert same(from_pretrained(folder), model) and f"{folder}: the weights are those in {name}" in caplog.messages
    shutil.copy(folder/name, folder/"other.ckpt")
    with pytest.raises(ValueError, match="holds 2 files of weights: give one of them, .*other.ckpt"): from_pretrained(folder)
    config = json.loads((folder/"config.json").read_text())
    (folder/"config.json").write_text(json.dumps(config | {"depth": 1}))
    with pytest.raises(ValueError, match="do not fit the model"): from_pretrained(folder/name)


def test_a_home_folder_is_found(model, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert model.save_pretrained("~/mine") == tmp_path/"mine" and same(from_pretrained("~/mine"), model)


def test_more_blocks_than_tensors_are_not_built(model, tmp_path):
    folder = model.save_pretrained(tmp_path/"model")
    config = json.loads((folder/"config.json").read_text())
    for name in ("depth", "field_depth"):
        (folder/"config.json").write_text(json.dumps(config | {name: 1024}))
        with pytest.raises(ValueError, match="config.json says 1024 blocks, and .* holds .* tensors"):
            from_pretrained(folder)


def test_tensors_that_do_not_fit_are_listed(model, tmp_path):
    folder = model.save_pretrained(tmp_path/"model")
    weights = load_file(folder/"model.safetensors")
    first, second = list(weights)[:2]
    fewer = {name: w for name, w in weights.items() if name != first}
    save_file(fewer | {second: torch.zeros(1), "more": torch.zeros(1)}, folder/"model.safetensors")
    with pytest.raises(ValueError) as e: from_pretrained(folder)
    assert f"1 missing ({first})" in str(e.value) and "1 unexpected (more)" in str(e.value)
    assert f"1 misshaped ({second} (1,) instead of" in str(e.value)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused_by_name(bad, model, tmp_path):
    weights = {name: w.clone() for name, w in model.state_dict().items()}
    weights["patch_embedding.weight"][3, 3] = bad
    save_file(weights, model.save_pretrained(tmp_path/"model")/"model.safetensors")
    message = "model.safetensors is damaged: patch_embedding.weight holds numbers that are not finite"
    with pytest.raises(ValueError, match=message): from_pretrained(tmp_path/"model")
    broken = PixNerd(model.config)
    broken.load_state_dict(weights)
    with pytest.raises(ValueError, match="numbers that are not finite"):
        from_pretrained(lightning(broken, tmp_path/"broken.ckpt"))


@pytest.mark.parametrize("text, message", [
    ("[" * 100_000, "config.json is damaged: it is nested too deeply"), ("{", "config.json is damaged"),
    ('{"a":' * 100_000, "config.json is damaged"), ("[1]", "expected an object of configuration fields"),
    ('{"widht": 8}', "config.json: unknown configuration field 'widht': did you mean 'width'?"),
    ('{"width": 128.0}', "config.json: width must be a whole number, got 128.0"),
    ('{"width": 1' + "0" * 5000 + "}", "config.json"), ('{"width": NaN}', "width must be a whole number, got nan")])
def test_a_configuration_that_is_none_is_said_in_a_line(text, message, tmp_path):
    (tmp_path/"config.json").write_text(text)
    with pytest.raises(ValueError, match=message) as e: read_config(tmp_path/"config.json")
    assert "\n" not in str(e.value)


def test_a_configuration_that_is_no_text_is_damaged(tmp_path):
    (tmp_path/"config.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="config.json is damaged"): read_config(tmp_path/"config.json")


def test_files_of_the_version_before_load(model, tmp_path):
    "Fields and tensors under their earlier names are today's."
    folder = model.save_pretrained(tmp_path/"old")
    weights = {name.replace("weight_generator", "writer"): w for name, w in model.state_dict().items()}
    save_file(weights, folder/"model.safetensors")
    config = json.loads((folder/"config.json").read_text())
    for between, off_grid in ("evaluated", "evaluate"), ("interpolated", "interpolate"):
        old = {name: value for name, value in config.items() if name not in ("off_grid", "class_names")}
        (folder/"config.json").write_text(json.dumps(old | {"between": between}))
        assert same(from_pretrained(folder), model.with_config(off_grid=off_grid))
    assert {current_name(name) for name in weights} == set(model.state_dict())
    (folder/"config.json").write_text(json.dumps(config | {"writer": 1}))
    with pytest.raises(ValueError, match="config.json: unknown configuration field 'writer'"): from_pretrained(folder)


@pytest.mark.parametrize("name", ["digits", "scenes"])
def test_shipped_models_are_their_presets(name, tmp_path):
    model = from_pretrained(name)
    assert model.config == PRESETS[name].config.changed(class_names=model.config.class_names)
    shutil.copytree(SHIPPED[name], tmp_path/name)
    assert same(from_pretrained(tmp_path/name), model)


@pytest.mark.parametrize("changes", [dict(patch=32, frequencies=256), dict(patch=4096, image_size=4096, frequencies=2)])
@pytest.mark.parametrize("off_grid", ["evaluate", "interpolate"])
def test_no_encoding_is_made_for_weights_that_do_not_fit(changes, off_grid, tmp_path):
    folder = PixNerd.from_preset("digits").save_pretrained(tmp_path)
    config = json.loads((folder/"config.json").read_text())
    (folder/"config.json").write_text(json.dumps(config | changes | {"off_grid": off_grid}))
    start = time.perf_counter()
    with pytest.raises(ValueError, match="2 misshaped .patch_embedding.weight"): from_pretrained(folder)
    assert time.perf_counter() - start < 1


def test_hostile_files_are_loaded_or_refused_in_a_line():
    "In bounded memory, and without delay; `tests/large` has a thousand of each kind."
    script = Path(__file__).with_name("hostile.py")
    told = json.loads(subprocess.run([sys.executable, script, "150", "0"], capture_output=True, check=True).stdout)
    assert not any(kind["wrong"] for kind in told.values()), told


# --- names ---

def test_the_hub_offline_says_so_and_names_the_cache(tmp_path):
    code = "import pixnerd; pixnerd.PixNerd.from_pretrained('MCG-NJU/PixNerd-XL-P16-C2I', cache_dir='here')"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True,
                          env={**os.environ, "HF_HUB_OFFLINE": "1"})
    told = "FileNotFoundError: 'MCG-NJU/PixNerd-XL-P16-C2I' could not be read from the hub"
    assert done.returncode and told in done.stderr and "in the cache here" in done.stderr


@pytest.mark.parametrize("choice", ["", "filename='model.ckpt', "])
def test_a_hub_cache_is_enough_offline(model, tmp_path, choice):
    "A downloaded repository, laid out as the hub's client lays it out, loads by its id without a network."
    repository = tmp_path/"models--someone--pixnerd"
    lightning(model, make(repository/"snapshots"/"abc")/"model.ckpt")
    (make(repository/"refs")/"main").write_text("abc")
    code = f"import pixnerd; print(pixnerd.PixNerd.from_pretrained('someone/pixnerd', {choice}cache_dir='.').config)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True,
                          env={**os.environ, "HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0 and done.stdout.strip() == str(model.config), done.stderr


def make(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def test_a_misspelt_folder_is_not_looked_up_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path/"runs").mkdir()
    with pytest.raises(FileNotFoundError, match="no model 'runs/demmo': must be a folder"):
        from_pretrained("runs/demmo")
    message = "dtype must be a floating torch.dtype or None, got 'float16'"
    with pytest.raises(ValueError, match=message): from_pretrained("digits", dtype="float16")


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    (tmp_path/"a").write_text("old")
    def fails(path):
        path.write_text("half")
        raise RuntimeError("no space left")
    with pytest.raises(OSError, match="cannot write .*no space left"): write_whole(tmp_path/"a", fails)
    assert (tmp_path/"a").read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["a"]
