"Text encoders, prompts, and a text model's way through training and sampling."

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch.testing import assert_close

import fresh
from pixnerd import cli
from pixnerd.checkpoints import from_pretrained, save_pretrained
from pixnerd.scenes import VOCABULARY, caption, make_scene
from pixnerd.records import digest
from pixnerd.sample_folders import draw_samples
from pixnerd.samplers import SamplerSettings
from pixnerd.model import PRESETS, PixNerd, PixNerdConfig
from pixnerd.text_to_image import CachedTextEncoder, LanguageEncoder, WordEncoder, load_text_encoder, read_prompts
from pixnerd.run_settings import TrainConfig
from pixnerd.run_folder import latest_checkpoint
from pixnerd.training import train

TINY = PixNerdConfig(width=32, heads=2, depth=1, patch=4, image_size=8, num_classes=0, text_width=39, text_tokens=12, text_depth=1, text_encoder="words", field_width=8, field_depth=1)


@pytest.fixture(scope="session")
def qwen(tmp_path_factory) -> str:
    "A Qwen3 with two small random layers and a tokeniser of the scenes' words, as a folder."
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    from tokenizers import Tokenizer, models, pre_tokenizers
    folder = tmp_path_factory.mktemp("qwen")
    known = {w: i for i, w in enumerate(["<pad>", "<unk>", *VOCABULARY])}
    tokenizer = Tokenizer(models.WordLevel(known, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>").save_pretrained(folder)
    torch.manual_seed(0)
    transformers.Qwen3Model(transformers.Qwen3Config(vocab_size=len(known), hidden_size=24, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
                                                     head_dim=12)).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def model(tmp_path) -> Path:
    "A tiny text model that has learned nothing."
    torch.manual_seed(0)
    model = PixNerd(TINY)
    torch.nn.init.normal_(model.decoder.out.linear.weight)
    return save_pretrained(model, tmp_path/"model")


# --- words

@given(st.integers(0, 10 ** 6), st.sampled_from(["train", "held-out"]))
@settings(max_examples=200, deadline=None)
def test_words_can_be_read_back(index, split):
    "Every caption of the world fits into the encoder, and its one-hot rows say it whole."
    words, text = WordEncoder(), caption(make_scene(index, split))
    rows = words([text])[0].argmax(-1).tolist()
    assert " ".join(VOCABULARY[i - 1] for i in rows if i) == text and 0 not in rows[:len(text.split())]


def test_capitals_and_points_are_no_words():
    words = WordEncoder()
    assert torch.equal(words(["A red circle, and a blue square."]), words(["a red circle and a blue square"]))


def test_unknown_words_are_listed_once_with_the_nearest():
    with pytest.raises(ValueError) as said: WordEncoder()(["a purple circel", "a purple dog"])
    assert str(said.value).startswith("unknown words: 'purple', 'circel' (did you mean 'circle'?), 'dog'") and str(said.value).count("'purple'") == 1


def test_texts_are_checked_before_they_are_needed():
    WordEncoder().check(caption(make_scene(index)) for index in range(100))
    for texts, message in [(["a star", "a dog", "a cat"], "^'a dog' cannot be encoded: unknown words: 'dog'"),
                           (["a star", 7], "got int 7")]:
        with pytest.raises(ValueError, match=message): WordEncoder().check(texts)


@pytest.mark.parametrize("texts, message", [(["a star", 7], "got int 7 at place 1"), ([None], "got NoneType None at place 0"), ("a star", "must be a list of str"), (3, "must be a list of str"), ([b"a star"], "got bytes")])
def test_what_is_no_text_is_refused(texts, message):
    with pytest.raises(ValueError, match=message): WordEncoder()(texts)


def test_the_vocabulary_is_that_of_the_shipped_weights():
    "A word's number is a row of the shipped model: words may not move."
    shipped = from_pretrained("scenes").config
    assert digest(" ".join(VOCABULARY)) == "a31fab0b2231be69" and shipped.text_width == len(VOCABULARY) + 1 and shipped.text_encoder == "words"


# --- a language model

def test_language_encoder_is_the_model_called_plainly(qwen):
    "Padding, batches and masks change nothing at the words; the empty text is finite."
    from transformers import AutoModel, AutoTokenizer
    texts = ["a red circle", "two small blue stars left of a green square", ""]
    encode, tokenizer, plain = LanguageEncoder(qwen, tokens=16), AutoTokenizer.from_pretrained(qwen), AutoModel.from_pretrained(qwen)
    said = encode(texts)
    assert said.shape == (3, 16, 24) and said.dtype == torch.float32 and said.isfinite().all() and not said.requires_grad
    for text, rows in zip(texts[:2], said):
        ids = tokenizer(text, return_tensors="pt").input_ids
        with torch.no_grad(): assert_close(rows[:ids.shape[1]], plain(ids).last_hidden_state[0], atol=1e-5, rtol=1e-5)


def test_a_long_prompt_is_cut_and_said(qwen):
    long = "a red circle " * 10
    with pytest.warns(UserWarning, match="longer than 16 tokens and was cut before 'red circle a red"): cut = LanguageEncoder(qwen, tokens=16)([long])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_close(cut, LanguageEncoder(qwen, tokens=16)([" ".join(long.split()[:16])]))


def test_kept_answers_survive_damage_and_belong_to_their_encoder(qwen, tmp_path):
    encode = LanguageEncoder(qwen, tokens=8)
    kept = CachedTextEncoder(encode, tmp_path)
    before = kept(["a red circle", "a star", "a star"])
    files = sorted(tmp_path.rglob("*.safetensors"))
    assert len(files) == 2
    whole = [f.read_bytes() for f in files]
    files[0].write_bytes(whole[0][:20]), files[1].write_bytes(b"rubbish")
    assert torch.equal(kept(["a red circle", "a star", "a star"]), before) and [f.read_bytes() for f in files] == whole
    with torch.no_grad(): encode.model.layers[0].mlp.up_proj.weight[0, 0] += 1
    assert CachedTextEncoder(encode, tmp_path).folder != kept.folder                      # other weights, other answers
    assert CachedTextEncoder(LanguageEncoder(qwen, tokens=9), tmp_path).folder != kept.folder


@pytest.mark.parametrize("name, message", [("nowhere/at/all", "no text encoder could be loaded from 'nowhere/at/all'"), ("", "does not say what encoded its text")])
def test_encoders_that_cannot_be_had(name, message, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match=message): load_text_encoder(name)


def test_an_encoder_must_fit_its_model(qwen):
    text, digits = from_pretrained("scenes"), from_pretrained("digits")
    with pytest.raises(ValueError, match="gives vectors 24 wide, and the model reads 39: it was trained with 'words'"): load_text_encoder(qwen, text)
    with pytest.raises(ValueError, match="conditioned on classes: it reads no text"): load_text_encoder("words", digits)
    assert PRESETS["XXL/16-text"].config.text_encoder == "Qwen/Qwen3-1.7B"


# --- prompts

def test_ten_thousand_prompts_from_a_file(model, tmp_path):
    "With a BOM, blank lines and Windows line ends; one image each, and a file that says which is which."
    texts = [caption(make_scene(i)) for i in range(10_000)]
    (tmp_path/"prompts.txt").write_bytes(b"\xef\xbb\xbf" + "".join(f"{t}\r\n{'  ' * (i % 3)}\r\n" for i, t in enumerate(texts)).encode())
    assert read_prompts(tmp_path/"prompts.txt") == texts
    cli.sample_main(["--model", str(model), "--prompts", str(tmp_path/"prompts.txt"), "--count", "1", "--steps", "1", "--guidance-scale", "1", "--batch", "1000", "--npz", "--out", str(tmp_path/"out"), "--device", "cpu"])
    assert (tmp_path/"out"/"prompts.txt").read_text().splitlines() == texts and len(list((tmp_path/"out"/"images").iterdir())) == 10_000
    assert np.load(tmp_path/"out"/"samples.npz")["arr_0"].shape == (10_000, 8, 8, 3)


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_only_line_ends_end_a_prompt(mark, tmp_path):
    (tmp_path/"p.txt").write_bytes(f"a red{mark}circle\r\na blue square\ra star\n".encode())
    assert read_prompts(tmp_path/"p.txt") == ["a red circle", "a blue square", "a star"]


@pytest.mark.parametrize("content, message", [(b"", "holds no prompts"), (b"\xef\xbb\xbf\r\n \r\n", "holds no prompts"), (b"a star\n\xff\xfe", "is not UTF-8 text"), (None, "no file of prompts")])
def test_files_that_hold_no_prompts(tmp_path, content, message):
    if content is not None: (tmp_path/"p.txt").write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError), match=message): read_prompts(tmp_path/"p.txt")


def test_prompts_interrupted_and_whole_are_the_same(model, tmp_path):
    drawn, encode = from_pretrained(model), WordEncoder()
    wanted = [caption(make_scene(i)) for i in range(12)]
    asked = dict(settings=SamplerSettings(method="adams", steps=3, guidance_scale=4.), batch=4, encode=encode)
    for there in draw_samples(drawn, wanted, tmp_path/"broken", **asked):
        if there == 8: break
    list(draw_samples(drawn, wanted, tmp_path/"broken", **asked)), list(draw_samples(drawn, wanted, tmp_path/"whole", **asked))
    for p in (tmp_path/"whole"/"images").iterdir(): assert p.read_bytes() == (tmp_path/"broken"/"images"/p.name).read_bytes()
    with pytest.raises(ValueError, match="labels was .* choose another out"): list(draw_samples(drawn, wanted[::-1], tmp_path/"whole", **asked))
    with pytest.raises(ValueError, match="labels must be prompts"): list(draw_samples(drawn, [1, 2], tmp_path/"new", **asked))


# --- the command line

def command(name, *arguments, cwd):
    return fresh.run(f"from pixnerd.cli import {name}_command; {name}_command()", *arguments, cwd=cwd)


def test_train_and_sample_by_prompt(tmp_path):
    "As a user does: a short run on scenes, then prompts, an empty one and a long one among them."
    done = command("train", "--data", "scenes", "--cond", "text", "--steps", 3, "--batch", 4, "--samples-every", 3, "--out", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path/"run"/"config.json").read_text())
    assert config["preset"] == "scenes" and from_pretrained(latest_checkpoint(tmp_path/"run")).config == PRESETS["scenes"].config
    assert (tmp_path/"run"/"samples"/"step-000003.png").is_file()
    long = "a red circle and a blue square and a red circle and a star"
    done = command("sample", "--model", "run", "--prompt", "two red circles", "--prompt", "", "--prompt", long, "--count", 2, "--steps", 2, "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "unconditional" in done.stderr and "warning: a prompt is longer than 12 words and was cut before 'a star'" in done.stderr
    record = json.loads((tmp_path/"out"/"samples.json").read_text())
    assert record["sampler"] == {"method": "adams", "steps": 2, "order": 2, "guidance_scale": 4., "guidance_interval": [0., 1.], "time_shift": 3.,
                                 "base_size": None}
    assert (tmp_path/"out"/"prompts.txt").read_text().splitlines() == ["two red circles"] * 2 + [""] * 2 + [long] * 2


def test_a_class_preset_learns_text(tmp_path, qwen, monkeypatch):
    "Name an encoder, and a fresh model takes the form it needs; whoever loads it is given the same encoder."
    monkeypatch.setenv("PIXNERD_DATA", str(tmp_path/"cache"))
    config = TrainConfig(out=str(tmp_path/"run"), data="scenes", preset="digits", text=qwen, size=16, steps=2, batch=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(train(config, cli.run_encoder(config)))
    trained = from_pretrained(latest_checkpoint(config.out))
    assert trained.config.text_encoder == qwen and (trained.config.text_width, trained.config.text_tokens) == (24, 128)
    cli.sample_main(["--model", config.out, "--prompt", "a red circle", "--count", "1", "--steps", "1", "--out", str(tmp_path/"out"), "--device", "cpu"])
    assert list((tmp_path/"cache"/"text").rglob("*.safetensors"))


def test_fine_tuning_takes_the_models_own_encoder(tmp_path):
    config = TrainConfig(out=str(tmp_path/"run"), data="scenes", start_from="scenes", steps=1, batch=2)
    assert isinstance(cli.run_encoder(config), WordEncoder)
    list(train(config, cli.run_encoder(config)))


@pytest.mark.parametrize("name, arguments, message", [
    ("sample", ["--prompt", "a purple circle"], "unknown words: 'purple'"), ("sample", ["--model", "scenes"], "needs to be told what to draw"), ("sample", ["--prompts", "nowhere.txt"], "no file of prompts nowhere.txt"),
    ("sample", ["--model", "digits", "--prompt", "a star"], "prompts are for text models"), ("sample", ["--model", "scenes", "--classes", "3"], "classes are for class models"),
    ("sample", ["--text", "words"], "text words is for text models"), ("sample", ["--prompt", "a star", "--text", "nowhere/at/all"], "no text encoder could be loaded"),
    ("sample", ["--prompt", "a star", "--count", "2", "--total", "3"], "count and total both say"), ("train", ["--cond", "text"], "cond text cannot be had: data digits has classes"),
    ("train", ["--cond", "class", "--data", "scenes"], "cond class cannot be had: data scenes has captions"), ("train", ["--cond", "words"], "cond must be one of auto, class, text"),
    ("train", ["--data", "scenes", "--preset", "digits"], "preset digits is a class model, and data scenes has captions: name a text encoder"),
    ("train", ["--data", "scenes", "--start-from", "digits"], "digits is a class model, and data scenes has captions")], ids=lambda v: " ".join(v) if isinstance(v, list) else None)
def test_a_mistake_gets_one_line_and_leaves_nothing(tmp_path, name, arguments, message, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path), monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(sys, "argv", [f"pixnerd-{name}", *arguments])
    with pytest.raises(SystemExit) as stopped: getattr(cli, f"{name}_command")()
    said = [line for line in capsys.readouterr().err.splitlines() if line]
    assert stopped.value.code == 2 and len(said) == 1 and message in said[0], said
    assert not any(p for p in tmp_path.rglob("*") if p.is_file() and p.name != ".lock")
