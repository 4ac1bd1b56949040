"""Files that somebody made to break the loader: `python tests/hostile.py COUNT SEED` makes so many of each kind.

Each is loaded in bounded memory and must load, or be refused with one line, within the time allowed; what was not is printed as JSON."""

import json
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

import torch

from pixnerd import PixNerd, from_pretrained, to_official
from pixnerd.checkpoints import config_from_official
from pixnerd.model import _RANGES

GIB, ALLOWED = 2 ** 30, 1. # bytes; seconds a file may take
TOY = dict(in_channels=3, patch_size=4, num_groups=2, hidden_size=16, hidden_size_x=8, nerf_mlpratio=2, num_blocks=2,
           num_cond_blocks=1, num_classes=5)


def strange_value(r: random.Random):
    "Something a field of a configuration should not be, or might be."
    whole = r.choice([0, -1, 1, 2, 8, 64, 1000, 1023, 1024, 2 ** 20, 2 ** 31, 2 ** 63, 10 ** 30, 10 ** 400])
    return r.choice([
        whole, whole, -whole, float(min(whole, 10 ** 300)), True, False, None, "", "dct", "field", "linear", "words",
        "interpolate", "\0", "\ud800", "x" * 10_000, [], ["W1"], ["W1"] * 10_000, [[1]], ["a", 2], {}, {"a": {"b": 1}},
        float("nan"), float("inf"), -float("inf"), 1e-300, .5])


def strange_text(r: random.Random, values: dict) -> bytes:
    "A configuration file with a few things wrong."
    names = [*values, "unheard_of", "", "__class__", "between", "off_grid"]
    def change(name):
        if name not in _RANGES or r.random() < .4: return strange_value(r)
        least, most = _RANGES[name] # of the right type, and as far as it goes
        return r.choice([least, most, most // 2, r.randint(least, most), r.randint(least, min(most, 256))])
    changed = values | {name: change(name) for name in r.choices(names, k=r.randint(1, 4))}
    text = json.dumps(changed).encode()
    kind = r.random()
    if kind < .6: return text
    if kind < .7: return text[:r.randrange(len(text))]
    if kind < .8:
        cut = r.randrange(len(text))
        return text[:cut] + r.randbytes(r.randint(1, 9)) + text[cut + r.randint(0, 9):]
    deep = r.choice([100, 1_000, 100_000])
    return r.choice([b"[" * deep, b'{"a":' * deep, text + text, b"\xef\xbb\xbf" + text, b"\xff\xfe" + text, b"null", b"",
                     b'{"width": ' + b"9" * deep + b"}", b'{"width": [' + b"[" * deep + b"]" * deep + b"]}",
                     text.replace(b"{", b'{"depth": 1, "depth": 2, ')])


def strange_tensor(r: random.Random, w: torch.Tensor):
    "Something in place of a weight."
    shape = [r.choice([0, 1, 2, 3, n, n + 1]) for n in w.shape]
    return r.choice([
        lambda: torch.zeros(shape), lambda: w.long(), lambda: w.half(), lambda: w.bfloat16(), lambda: w.to(torch.complex64),
        lambda: w.fill_(float("nan")), lambda: torch.zeros(()), lambda: torch.zeros(1).expand(10 ** 9, *w.shape[1:]),
        lambda: torch.zeros(1, 1).expand(10 ** 6, w.shape[-1]), lambda: w.to_sparse(), lambda: w.bool(), lambda: None,
        lambda: 5, lambda: "text", lambda: [w], lambda: {"deeper": w}, lambda: (w, w), lambda: w.double(),
        lambda: w.t() if w.ndim == 2 else w[None], lambda: torch.empty(0), lambda: torch.zeros([1] * 60),
        lambda: torch.zeros(2, 10 ** 6), lambda: w.to(torch.float8_e4m3fn), lambda: torch.nn.Parameter(w)])()


def strange_names(r: random.Random, weights: dict) -> dict:
    "Some names in front of the others, or none."
    front = "".join(r.choice(["ema_denoiser.", "denoiser.", "module.", "_orig_mod.", "model.", "ema.", "net.", "..", ""])
                    for _ in range(r.randint(0, 3)))
    return {front + name: w for name, w in weights.items()}


def strange_container(r: random.Random, weights: dict):
    "What a file holds, besides or in place of a state."
    turn = dict(weights)
    turn["state_dict"] = turn
    deep = {}
    for _ in range(r.choice([3, 100])): deep = {"model": deep}
    return r.choice([
        {"state_dict": weights}, {"state_dict": weights, "epoch": 3, "optimizer_states": [{"step": torch.ones(1)}]}, weights,
        {"ema": weights, "model": weights}, {"model": {"state_dict": weights}}, {"state_dict": weights, "model": weights},
        [weights], None, 7, "text", torch.ones(3), {"state_dict": list(weights)}, {1: weights}, turn, deep, {},
        {"state_dict": {i: w for i, w in enumerate(weights.values())}}, {"state_dict": weights | {"": 1, "blocks": 2}}])


def strange_file(r: random.Random, official: dict, path: Path) -> None:
    "A checkpoint with a few things wrong."
    weights = {name: w.clone() for name, w in official.items()}
    names = list(weights)
    for _ in range(r.choice([0, 1, 1, 2])):
        name = r.choice(names)
        change = r.random()
        if change < .7: weights[name] = strange_tensor(r, official[name].clone())
        elif change < .85: weights.pop(name, None)
        else: weights[r.choice([name + ".more", "blocks.9.attn.qkv.weight", "y_pos_embedding", "a", "final_layer"])] = torch.ones(2)
    torch.save(strange_container(r, strange_names(r, weights)), path)
    if r.random() < .5: return
    data = bytearray(path.read_bytes())
    change = r.random()
    if change < .3: data = data[:r.randrange(len(data))]
    else:
        inside = data.find(b"data.pkl") + 8 if change < .8 else 0 # most of the damage where it is read as instructions
        for _ in range(r.choice([1, 3, 30])): data[min(inside + r.randrange(3_000), len(data) - 1)] = r.randrange(256)
    path.write_bytes(data)


def attack(what: str, count: int, seed: int) -> dict:
    "Make and load so many files; what was loaded, refused, slow, or failed in another way than it should."
    resource.setrlimit(resource.RLIMIT_DATA, (4 * GIB, 4 * GIB))
    r, folder = random.Random(seed), Path(tempfile.mkdtemp())
    torch.manual_seed(seed)
    model = PixNerd(config_from_official(TOY))
    values = json.loads((model.save_pretrained(folder)/"config.json").read_text())
    official = {name: w.detach() for name, w in to_official(model).items()}
    from_pretrained(folder) # what is loaded once is no file's fault
    told = {"files": count, "loaded": 0, "refused": 0, "slowest": 0., "wrong": []}
    for number in range(count):
        path = folder/("config.json" if what == "configurations" else f"{number}.ckpt")
        if what == "configurations": path.write_bytes(strange_text(r, values))
        else: strange_file(r, official, path)
        start, wrong = time.perf_counter(), None
        try:
            from_pretrained(folder if what == "configurations" else path)
            told["loaded"] += 1
        except (ValueError, FileNotFoundError) as e:
            told["refused"] += 1
            if "\n" in str(e) or len(str(e)) > 2_000: wrong = f"long answer: {str(e)[:300]!r}"
        except Exception as e: wrong = f"{type(e).__name__}: {str(e)[:300]}"
        seconds = time.perf_counter() - start
        told["slowest"] = max(told["slowest"], round(seconds, 3))
        if seconds > ALLOWED: wrong = f"took {seconds:.1f} s"
        if wrong: told["wrong"].append(f"file {number}: {wrong}")
        path.unlink()
    told["peak_gib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2 ** 20, 2)
    return told


if __name__ == "__main__":
    count, seed = map(int, sys.argv[1:])
    print(json.dumps({what: attack(what, count, seed) for what in ("configurations", "checkpoints")}, indent=1))
