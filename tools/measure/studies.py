"""Make the studies' results: `python tools/studies.py heads` writes nbs/results/heads.json, and the page nbs/studies/heads.ipynb reads it.

Studies that train: heads, encodings, shape, pixels, alignment. Studies of the shipped models: solvers, sizes. Several can be named; `all` is all of them.
Runs are kept in runs/studies/ as they end: an interrupted study continues, and an arm of two studies is trained once. `--scale cifar10` makes
the same arms on CIFAR-10 with the preset S (a GPU is advised) and writes nbs/results/NAME-cifar10.json.
"""

import argparse
import json
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, replace
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import torch

from pixnerd.checkpoints import from_pretrained
from pixnerd.records import write_whole
from pixnerd.command import progress
from pixnerd.data import load_data
from pixnerd.sample_folders import TextSampler, draw_batch
from pixnerd.evaluation import accuracy, evaluate_digits
from pixnerd.metrics import fidelity_digits
from pixnerd.records import fingerprint, source_commit
from pixnerd.probes import radial_power
from pixnerd.model import PRESETS, PixNerd
from pixnerd.patches import to_signed
from pixnerd.samplers import RECOMMENDED, RECOMMENDED_TEXT, seam_meter
from pixnerd.scene_eval import scene_prompts, score_scenes
from pixnerd.studies import Arm, Scale, match_parameters, run_study, time_arms
from pixnerd.text_to_image import encoder_of
from pixnerd.records import pick_device, provenance

ROOT = Path(__file__).resolve().parent.parent
SCALES = {"digits": Scale("digits", "digits", size=32, patch=8, steps=400, batch=64, lr=4e-3, ema=.99, samples=500),
          "cifar10": Scale("cifar10", "S/4", size=32, patch=4, steps=20_000, batch=256, lr=2e-4, ema=.999, samples=10_000)}
PATCHES = (2, 4, 8, 16)


def linear_twin(scale: Scale, patch: int, side: int) -> Arm:
    "A linear head with what the field's writer costs put into two more blocks, their feed-forward width trimmed."
    field = scale.shape(Arm("", f"patch={patch}", (("size", side),)))
    twin = match_parameters(replace(field, head="linear", depth=field.depth + 2), scale.parameters(Arm("", f"patch={patch}", (("size", side),))))
    return Arm(f"linear, patch {patch}", f"patch={patch} head=linear depth={twin.depth} hidden={twin.hidden}", (("size", side),))


def heads(scale: Scale, timed: Callable) -> list[Arm]:
    "Field against linear head by patch: the same count of tokens, so that images grow with the patch."
    arms, grid = [], scale.size // scale.patch
    for patch in PATCHES:
        side = grid * patch
        field = Arm(f"field, patch {patch}", f"patch={patch}", (("size", side),)) if patch != scale.patch else Arm(f"field, patch {patch}")
        twin = linear_twin(scale, patch, side)
        equal = max(1, round(scale.steps * timed(f"patch {patch}", field, twin)))           # steps the linear twin makes in the field's time
        arms += [field, replace(twin, marks=tuple(sorted({scale.steps, equal})))]
        if patch == scale.patch:                                                            # is the baseline's learning rate to blame?
            arms += [replace(arm, name=f"{arm.name}, rate × {k:g}", settings=(*arm.settings, ("lr", k * scale.lr))) for arm in (field, twin) for k in (.5, 2.)]
    return arms


def encodings(scale: Scale, timed: Callable) -> list[Arm]:
    "What the field knows of the place: everything else equal."
    return [Arm("dct")] + [Arm(name, f"encoding={name}") for name in ("integer-dct", "separable-cosine", "sincos", "none")]


def shape(scale: Scale, timed: Callable) -> list[Arm]:
    "Which generated weights are normalised; the field's width; blocks of the field against blocks of the transformer."
    c = PRESETS[scale.preset].config
    norms = [Arm(f"normalised: {name}", f"normalise={value}") for name, value in (("none", ""), ("W1", "W1"), ("W2", "W2"))]
    plain = [Arm("no output norm", "output_norm=false"), Arm("normalised: W1; no output norm", "normalise=W1 output_norm=false")]
    widths = [Arm(f"field width {w}", f"field_width={w}") for w in (c.field_width // 2, 2 * c.field_width)]
    total = c.depth + c.field_depth
    depths = [Arm(f"{total - k} + {k} blocks", f"depth={total - k} field_depth={k}") for k in (2, 3)]
    return [Arm("as the preset"), *norms, *plain, *widths, *depths]


def pixels(scale: Scale, timed: Callable) -> list[Arm]:
    "Noisy pixels into the field or not, and tokens narrower than the patch has values."
    channels = scale.shape(Arm("")).channels
    patch = 8
    values, arms = channels * patch ** 2, []
    for width in (values // 2, values, 2 * values):
        told = f"patch={patch} width={width}" if (patch, width) != (scale.patch, PRESETS[scale.preset].config.width) else ""
        arms += [Arm(f"field, width {width}", told), Arm(f"field without pixels, width {width}", f"{told} noisy_pixels=false".strip()), Arm(f"linear, width {width}", f"{told} head=linear".strip())]
    return arms


def alignment(scale: Scale, timed: Callable) -> list[Arm]:
    "REPA on and off, early and later."
    marks = tuple(scale.steps * k // 4 for k in (1, 2, 4, 8))
    told = (("align", "digits"), ("align_block", 2)) if scale.data == "digits" else (("align", "dinov2"), ("align_block", 4))
    return [Arm("without", marks=marks), Arm("with", settings=told, marks=marks)]


TRAINED = {f.__name__: f for f in (heads, encodings, shape, pixels, alignment)}


# --- studies of the shipped models: a seed is a set of noises ---

def row(arm: str, seed: int, model, **found) -> dict:
    return {"arm": arm, "seed": seed, "parameters": sum(p.numel() for p in model.parameters()), "marks": [{"step": 0, **{k: float(f"{v:.5g}") for k, v in found.items()}}]}


def solvers(group: str, seed: int, samples: int) -> list[dict]:
    "Digits by solver and steps, without guidance and with much of it; by guidance scale and interval."
    model, labels = from_pretrained("digits"), torch.arange(samples) % 10

    def draw(**settings): return torch.cat([draw_batch(model, n.tolist(), labels[n], torch.full_like(n, 10), seed, **settings) for n in torch.arange(samples).split(100)])

    if group == "interval":
        asked = {f"scale {g:g} on {lo:g} to {hi:g}": {"steps": 25, "guidance_scale": g, "guidance_interval": (lo, hi)} for g, (lo, hi) in product((1.5, 2., 3., 4.), ((0., 1.), (.1, 1.), (.3, 1.), (0., .7)))}
        asked, fine = {"no guidance": {"steps": 25}} | asked, None
    else:
        guidance = {} if group == "plain" else {"guidance_scale": 3.5, "guidance_interval": (.1, 1.)}
        ways = {"Euler": {"method": "euler"}, "Adams 2": {"method": "adams", "order": 2}, "Adams 4": {"method": "adams", "order": 4}}
        if group == "plain": ways |= {"Heun": {"method": "heun"}, "Adams 3": {"method": "adams", "order": 3}, "SDE": {"method": "sde"}}
        asked = {f"{name}, {n} evaluations{'' if group == 'plain' else ', scale 3.5'}": way | guidance | {"steps": (n + 1) // 2 if name == "Heun" else n} for name, way in ways.items() for n in (6, 12, 25)}
        fine = draw(method="heun", steps=60, **guidance)
    out = []
    for name, settings in asked.items():
        images = draw(**settings)
        far = {} if fine is None or "SDE" in name else {"distance": (images - fine).square().mean().sqrt().item()}
        out.append(row(name, seed, model, **far, **evaluate_digits(images, labels), **fidelity_digits(images)))
    return out


def sizes(group: str, seed: int, samples: int) -> list[dict]:
    "A shipped model at one, two and four times its trained size: read as asked, seams, and power at waves the trained size cannot hold."
    model, out = from_pretrained(group), []
    side, patch = model.config.image_size, model.config.patch
    grid = (side // patch, side // patch)
    if group == "scenes":
        encode, prompts = encoder_of(model), scene_prompts(samples // 6, "held-out", seed)
        texts = [text for some in prompts.values() for text in some]
    labels = torch.arange(samples) % 10

    def told(images: torch.Tensor) -> dict:
        "What pictures of any size are worth."
        if group == "digits": found = {"accuracy": accuracy(images, labels)}
        else: found = {"accuracy": score_scenes(prompts, dict(zip(prompts, images.split([len(some) for some in prompts.values()]))), seed)["overall"]["rate"]}
        return found | worth(images)

    def worth(images: torch.Tensor) -> dict:
        "Seams, and power at more than the trained size's cycles."
        return {"seams": seam_meter(images, grid), "detail": radial_power(images)[1][side // 2 + 1:].sum().item()}

    for times in (1, 2, 4):
        size = side * times
        for off_grid in ("evaluate", "interpolate"):
            with torch.device("meta"): other = PixNerd(replace(model.config, off_grid=off_grid)).eval()
            other.load_state_dict(model.state_dict(), assign=True)
            if group == "digits": images = torch.cat([draw_batch(other, n.tolist(), labels[n], torch.full_like(n, 10), seed, size, RECOMMENDED) for n in torch.arange(samples).split(50)])
            else:
                painter = TextSampler(other, encode, RECOMMENDED_TEXT, seed, size)
                images = torch.cat([painter(texts[i:i + 50], range(i, min(i + 50, len(texts)))) for i in range(0, len(texts), 50)])
            out.append(row(f"{group}, {size} px, {off_grid}d", seed, model, **told(images)))
            if times == 1: small = images
        if times > 1:
            enlarged = torch.nn.functional.interpolate(small, size=(size, size), mode="bicubic", antialias=True).clamp(-1, 1)
            out.append(row(f"{group}, {size} px, enlarged", seed, model, **told(enlarged)))
        held = load_data(group, "held-out", size)
        which = torch.randperm(min(len(held), 2000), generator=torch.Generator().manual_seed(seed))[:samples].tolist()
        pictures = torch.stack([held[i].image for i in which])
        out.append(row(f"{group}, {size} px, real", seed, model, **worth(pictures if pictures.is_floating_point() else to_signed(pictures))))
    return out


MEASURED = {"solvers": (solvers, ("plain", "strong", "interval"), 200), "sizes": (sizes, ("digits", "scenes"), 120)}     # function, its parts, samples of each


def measure_part(name: str, group: str, seed: int, samples: int, folder: Path, threads: int = 0) -> list[dict]:
    "One part of such a study with one seed, or what an earlier call found."
    if threads: torch.set_num_threads(threads)
    path = folder/f"{name}-{group}-{seed}-{samples}.json"
    if not path.is_file():
        found = MEASURED[name][0](group, seed, samples)
        write_whole(path, lambda p: p.write_text(json.dumps(found) + "\n"))
    return json.loads(path.read_text())


def parse(arguments=None) -> argparse.Namespace:
    parser, every = argparse.ArgumentParser(description=__doc__.splitlines()[0]), [*TRAINED, *MEASURED]
    parser.add_argument("studies", nargs="+", choices=[*every, "all"], metavar="STUDY", help=f"{', '.join(every)} or all")
    parser.add_argument("--scale", choices=SCALES, default="digits", help="data and budget of the studies that train")
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time; above 1 each has one thread")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--runs", type=Path, default=ROOT/"runs"/"studies", help="where results of single runs are kept")
    parser.add_argument("--out", type=Path, default=ROOT/"nbs"/"results", help="folder of the results")
    for name in ("steps", "batch", "samples"): parser.add_argument(f"--{name}", type=int, help=f"{name} instead of the scale's, to try things out")
    parser.add_argument("--data", help="data instead of the scale's: a folder of class folders, to try things out")
    given = parser.parse_args(arguments)
    for name in ("seeds", "jobs"):
        if getattr(given, name) < 1: parser.error(f"argument --{name}: must be at least 1, got {getattr(given, name)}")
    for name in ("steps", "batch"):
        if getattr(given, name) is not None and getattr(given, name) < 1: parser.error(f"argument --{name}: must be at least 1, got {getattr(given, name)}")
    if given.samples is not None and given.samples < 0: parser.error(f"argument --samples: must be at least 0 (no samples, no scores), got {given.samples}")
    if "all" in given.studies: given.studies = every
    if given.scale != "digits" and (small := [name for name in given.studies if name in MEASURED]): parser.error(f"argument --scale: {', '.join(small)} measure the shipped models, which have one scale: digits")
    try: pick_device(given.device)
    except ValueError as e: parser.error(str(e))
    return given


def write_results(given: argparse.Namespace, name: str, rows: list[dict], **told) -> None:
    "A results file, a line for each run."
    out = given.out/(f"{name}.json" if given.scale == "digits" else f"{name}-{given.scale}.json")
    command = f"python tools/studies.py {name} --seeds {given.seeds}" + ("" if given.scale == "digits" else f" --scale {given.scale}") + (f" --jobs {given.jobs}" if given.jobs > 1 else "")      # above 1 runs have one thread: the last digits
    made_by = provenance(pick_device(given.device)) | {"commit": source_commit(), **({"threads": 1} if given.jobs > 1 else {})}
    record = {"command": command, "seeds": list(range(given.seeds)), **told, "made_by": made_by}
    text = json.dumps(record)[:-1] + ', "rows": [\n' + ",\n".join(map(json.dumps, rows)) + "\n]}\n"
    write_whole(out, lambda path: path.write_text(text))
    print(out)


def train_all(given: argparse.Namespace, names: list[str]) -> None:
    "Studies that train."
    scale, times = replace(SCALES[given.scale], **{name: value for name in ("steps", "batch", "samples", "data") if (value := getattr(given, name)) is not None}), {}

    def timed(name: str, field: Arm, twin: Arm) -> float:
        "Steps of the second arm in the time of one of the first; measured once, and kept."
        path = given.runs/f"time-{given.scale}-{name.replace(' ', '-')}.json"
        if not path.is_file():
            threads = torch.get_num_threads()
            if given.jobs > 1: torch.set_num_threads(1)                     # as the runs will have it
            found = time_arms(scale, (field, twin), given.runs/"timing", device=given.device)
            torch.set_num_threads(threads)
            write_whole(path, lambda p: p.write_text(json.dumps(found) + "\n"))
        times[name] = json.loads(path.read_text())
        return times[name][twin.name]["ratio"]

    plans = {name: TRAINED[name](scale, timed) for name in names}
    arms = list({replace(arm, name=""): arm for plan in plans.values() for arm in plan}.values())       # one that two studies share is trained once
    with progress(len(arms) * given.seeds, "studies", "run") as bar:
        for found in run_study(scale, arms, range(given.seeds), given.runs, given.jobs, given.device):
            bar.update()
            bar.set_postfix_str(f"{found['arm']}, seed {found['seed']}: {found['marks'][-1]['loss']:.4f}")
    for name, plan in plans.items():
        rows = list(run_study(scale, plan, range(given.seeds), given.runs, 1, given.device))
        write_results(given, name, rows, scale=asdict(scale), arms=[asdict(arm) for arm in plan], **({"times": times} if name == "heads" else {}))


def measure_all(given: argparse.Namespace, names: list[str]) -> None:
    "Studies of the shipped models."
    todo = [(name, group, seed, given.samples or MEASURED[name][2], given.runs) for seed in range(given.seeds) for name in names for group in MEASURED[name][1]]
    with progress(len(todo), "studies", "part") as bar, ProcessPoolExecutor(given.jobs, get_context("spawn")) as pool:
        for _ in as_completed([pool.submit(measure_part, *part, threads=1) for part in todo]): bar.update()
    for name in names:
        rows = [found for part in todo if part[0] == name for found in measure_part(*part)]
        write_results(given, name, rows, samples=given.samples or MEASURED[name][2], weights={model: fingerprint(from_pretrained(model)) for model in ("digits", "scenes")})


def main() -> int:
    given = parse()
    given.runs.mkdir(parents=True, exist_ok=True)
    if names := [name for name in given.studies if name in TRAINED]: train_all(given, names)
    if names := [name for name in given.studies if name in MEASURED]: measure_all(given, names)
    return 0


if __name__ == "__main__": sys.exit(main())
