"The published arithmetic and the published names: equal to reference values, one for one, both ways."

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from pixnerd import PRESETS, PixNerd, from_official, to_official

REFERENCE = Path(__file__).parent/"reference"
LAYOUTS = json.loads((REFERENCE/"official_state_dicts.json").read_text())


def load(name: str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    "A reference file's tensors and what it says about itself."
    with safe_open(REFERENCE/f"{name}.safetensors", "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()


def weights_of(tensors: dict) -> dict:
    return {key.removeprefix("weights."): w for key, w in tensors.items() if key.startswith("weights.")}


@pytest.mark.parametrize("name", ["c2i_tiny", "c2i_gray_nonsquare", "t2i_tiny", "t2i_any_resolution"])
def test_output_equals_the_reference(name):
    tensors, about = load(name)
    model = from_official(weights_of(tensors), json.loads(about["config"]))
    x, base_size = tensors["input.x"], None
    if "decoder_patch_scaling_h" in about:
        scales = [float(about[f"decoder_patch_scaling_{axis}"]) for axis in "hw"]
        base_size = tuple(round(side / scale) for side, scale in zip(x.shape[-2:], scales))
    with torch.no_grad(): output = model(x, tensors["input.t"], tensors["input.y"], base_size)
    error = (output - tensors["output"]).abs().max().item()
    assert error <= 1e-5 * max(1, tensors["output"].abs().max().item()), error


@pytest.mark.parametrize("name", ["c2i_tiny", "t2i_tiny"])
def test_there_and_back(name):
    tensors, about = load(name)
    weights = weights_of(tensors)
    back = to_official(from_official(weights, json.loads(about["config"])))
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[key], w) for key, w in weights.items())


@pytest.mark.parametrize("preset, layout", [
    ("L/16", "c2i_large_16"), ("XL/16", "c2i_xlarge_16"), ("XXL/16-text", "t2i_xxlarge_16")])
def test_published_layouts(preset, layout):
    with torch.device("meta"): model = PixNerd(PRESETS[preset].config)
    assert {name: list(w.shape) for name, w in to_official(model).items()} == LAYOUTS[layout]


def test_what_does_not_fit_is_listed():
    tensors, about = load("c2i_tiny")
    weights, arguments = weights_of(tensors), json.loads(about["config"])
    name = "blocks.0.mlp.w1.weight"
    for bad, message in [
        ({n: w for n, w in weights.items() if n != name}, rf"1 missing \({name}\)"),
        (weights | {"surprise": torch.zeros(1)}, r"1 unexpected \(surprise\)"),
        (weights | {name: torch.zeros(3, 64)}, rf"1 misshaped \({name} \(3, 64\) instead of \(170, 64\)\)"),
        ({}, r"missing \(s_embedder.proj.weight, .* and \d+ more\)"),
    ]:
        with pytest.raises(ValueError, match=message): from_official(bad, arguments)
    fewer = {n: v for n, v in arguments.items() if n != "num_groups"}
    with pytest.raises(ValueError, match="lack 'num_groups'"): from_official(weights, fewer)
