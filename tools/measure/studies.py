"""Make the studies' results: `python tools/measure studies heads` writes nbs/results/heads.json, which its page reads.

Studies that train: heads, encodings, shape, pixels, alignment; of the shipped models: solvers, sizes; `all` is all.
Runs are kept in runs/studies/ as they end: an interrupted study continues, and an arm of two studies is trained once.
`--scale cifar10` makes the same arms on CIFAR-10 with the preset S (a GPU is advised), into NAME-cifar10.json.
"""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from itertools import product
from pathlib import Path

import torch
from torch.nn.functional import interpolate

from pixnerd.checkpoints import from_pretrained
from pixnerd.command import progress
from pixnerd.data import load_data
from pixnerd.evaluation import accuracy
from pixnerd.model import PRESETS, PixNerd
from pixnerd.order import collate
from pixnerd.patches import to_signed
from pixnerd.probes import radial_power
from pixnerd.records import fingerprint, pick_device, provenance, source_commit, write_whole
from pixnerd.sample_folders import TextSampler, draw_images
from pixnerd.samplers import RECOMMENDED, RECOMMENDED_TEXT, SamplerSettings, labelled_solvers, seam_meter
from pixnerd.scene_eval import draw_suite, scene_prompts, score_scenes
from pixnerd.studies import Arm, Scale, keep, match_parameters, run_all, run_study, score_digits, time_arms
from pixnerd.text_to_image import encoder_of

ROOT = Path(__file__).resolve().parents[2]
SCALES = {
    "digits": Scale("digits", "digits", size=32, patch=8, steps=400, batch=64, lr=4e-3, ema=.99, samples=500),
    "cifar10": Scale("cifar10", "S/4", size=32, patch=4, steps=20_000, batch=256, lr=2e-4, ema=.999, samples=10_000),
}
PATCHES = (2, 4, 8, 16)


# --- studies that train: each is a list of arms; `timed` gives the steps of one arm in the time of another's ---

def linear_twin(scale: Scale, field: Arm, patch: int) -> Arm:
    "A linear head, with what the field's weight generator costs put into two more, trimmed blocks."
    shape = scale.shape(field)
    twin = match_parameters(replace(shape, head="linear", depth=shape.depth + 2), scale.parameters(field))
    model = f"patch={patch} head=linear depth={twin.depth} hidden={twin.hidden}"
    return Arm(f"linear, patch {patch}", model, (("size", shape.image_size),))


def heads(scale: Scale, timed: Callable) -> list[Arm]:
    "Field against linear head by patch: the same count of tokens, so that images grow with the patch."
    arms, grid = [], scale.size // scale.patch
    for patch in PATCHES:
        field = Arm(f"field, patch {patch}")
        if patch != scale.patch: field = replace(field, model=f"patch={patch}", settings=(("size", grid * patch),))
        twin = linear_twin(scale, field, patch)
        equal = max(1, round(scale.steps * timed(f"patch {patch}", field, twin)))
        arms += [field, replace(twin, marks=tuple(sorted({scale.steps, equal})))]
        if patch != scale.patch: continue
        for arm, k in product((field, twin), (.5, 2.)):         # is the baseline's learning rate to blame?
            arms.append(replace(arm, name=f"{arm.name}, rate × {k:g}", settings=(*arm.settings, ("lr", k * scale.lr))))
    return arms


def encodings(scale: Scale, timed: Callable) -> list[Arm]:
    "What the field knows of the place: everything else equal."
    others = ("integer-dct", "separable-cosine", "sincos", "none")
    return [Arm("dct"), *(Arm(name, f"encoding={name}") for name in others)]


def shape(scale: Scale, timed: Callable) -> list[Arm]:
    "Which generated weights are normalised; the field's width; blocks of the field against blocks of the transformer."
    c = PRESETS[scale.preset].config
    total = c.depth + c.field_depth
    changes = {
        "as the preset": "",
        "normalised: none": "normalise=",
        "normalised: W1": "normalise=W1",
        "normalised: W2": "normalise=W2",
        "no output norm": "output_norm=false",
        "normalised: W1; no output norm": "normalise=W1 output_norm=false",
        **{f"field width {width}": f"field_width={width}" for width in (c.field_width // 2, 2 * c.field_width)},
        **{f"{total - k} + {k} blocks": f"depth={total - k} field_depth={k}" for k in (2, 3)},
    }
    return [Arm(name, model) for name, model in changes.items()]


def pixels(scale: Scale, timed: Callable) -> list[Arm]:
    "Noisy pixels into the field or not, and tokens narrower than the patch has values."
    arms, patch = [], 8
    values = scale.shape(Arm("")).channels * patch ** 2
    kinds = {"field": "", "field without pixels": "noisy_pixels=false", "linear": "head=linear"}
    for width, (kind, change) in product((values // 2, values, 2 * values), kinds.items()):
        as_preset = (patch, width) == (scale.patch, PRESETS[scale.preset].config.width)
        model = "" if as_preset else f"patch={patch} width={width}"
        arms.append(Arm(f"{kind}, width {width}", f"{model} {change}".strip()))
    return arms


def alignment(scale: Scale, timed: Callable) -> list[Arm]:
    "REPA on and off, early and later."
    marks = tuple(scale.steps * k // 4 for k in (1, 2, 4, 8))
    encoder, block = ("digits", 2) if scale.data == "digits" else ("dinov2", 4)
    aligned = (("align", encoder), ("align_block", block))
    return [Arm("without", marks=marks), Arm("with", settings=aligned, marks=marks)]


TRAINED = {make.__name__: make for make in (heads, encodings, shape, pixels, alignment)}


# --- studies of the shipped models: a seed is a set of noises ---

def row(arm: str, seed: int, model: PixNerd, found: dict) -> dict:
    "A line of the results, as `run_study` gives them for arms that train."
    mark = {"step": 0, **{name: float(f"{value:.5g}") for name, value in found.items()}}
    return {"arm": arm, "seed": seed, "parameters": sum(p.numel() for p in model.parameters()), "marks": [mark]}


def guidance_arms() -> dict[str, SamplerSettings]:
    "Guidance scales and intervals."
    arms = {"no guidance": SamplerSettings(steps=25)}
    for scale, (low, high) in product((1.5, 2., 3., 4.), ((0., 1.), (.1, 1.), (.3, 1.), (0., .7))):
        changed = replace(arms["no guidance"], guidance_scale=scale, guidance_interval=(low, high))
        arms[f"scale {scale:g} on {low:g} to {high:g}"] = changed
    return arms


def solver_arms(strong: bool) -> dict[str, SamplerSettings]:
    "Solvers with as many steps as so many evaluations pay for, without guidance or with much of it."
    arms, solvers, ending, guidance = {}, labelled_solvers(), "", {}
    if strong:
        solvers = {name: solvers[name] for name in ("Euler", "Adams 2", "Adams 4")}
        ending, guidance = ", scale 3.5", {"guidance_scale": 3.5, "guidance_interval": (.1, 1.)}
    for (name, solver), most in product(solvers.items(), (6, 12, 25)):
        steps = max(n for n in range(1, most + 1) if replace(solver, steps=n).evaluations <= most)
        arms[f"{name}, {most} evaluations{ending}"] = replace(solver, steps=steps, **guidance)
    return arms


def solvers(group: str, seed: int, samples: int) -> list[dict]:
    "Digits by solver and evaluations, without guidance and with much of it; by guidance scale and interval."
    model, labels, rows = from_pretrained("digits"), torch.arange(samples) % 10, []

    def draw(settings, **changes): return draw_images(model, labels.tolist(), replace(settings, seed=seed, **changes))

    arms = guidance_arms() if group == "interval" else solver_arms(group == "strong")
    if group != "interval":                                 # settings fine enough to measure the distance to
        fine = draw(next(iter(arms.values())), method="heun", steps=60)
    for name, settings in arms.items():
        images = draw(settings)
        found = score_digits(images, labels)
        if group != "interval" and settings.method != "sde":
            found["distance"] = (images - fine).square().mean().sqrt().item()
        rows.append(row(name, seed, model, found))
    return rows


def sizes(group: str, seed: int, samples: int) -> list[dict]:
    "A shipped model at one, two and four times its trained size: accuracy, seams, and detail."
    model, labels, rows = from_pretrained(group), torch.arange(samples) % 10, []
    side, prompts = model.config.image_size, scene_prompts(samples // 6, "held-out", seed)

    def draw(off_grid, size): # digits, or pictures by skill
        changed = model.with_config(off_grid=off_grid)
        if group == "digits": return draw_images(changed, labels.tolist(), replace(RECOMMENDED, seed=seed), 50, size)
        sampler = TextSampler(changed, encoder_of(model), replace(RECOMMENDED_TEXT, seed=seed), size)
        return torch.cat(list(draw_suite(sampler, prompts).values()))

    def right(images): # the share that shows what was asked for
        if group == "digits": return accuracy(images, labels)
        parts = dict(zip(prompts, images.split(samples // 6)))
        return score_scenes(prompts, parts, seed)["overall"]["rate"]

    def add(what, images, asked=True):
        found = {"accuracy": right(images)} if asked else {}
        found["seams"] = seam_meter(images, (side // model.config.patch,) * 2)
        # power at more cycles than the trained size can hold
        found["detail"] = radial_power(images)[1][side // 2 + 1:].sum().item()
        rows.append(row(f"{group}, {size} px, {what}", seed, model, found))

    for size in (side, 2 * side, 4 * side):
        for off_grid in ("evaluate", "interpolate"):
            images = draw(off_grid, size)
            add(f"{off_grid}d", images)
        if size == side: small = images
        else: add("enlarged", interpolate(small, size=(size, size), mode="bicubic", antialias=True).clamp(-1, 1))
        held = load_data(group, "held-out", size)
        which = torch.randperm(min(len(held), 2000), generator=torch.Generator().manual_seed(seed))[:samples]
        real = collate([held[i] for i in which.tolist()]).images
        add("real", real if real.is_floating_point() else to_signed(real), asked=False)
    return rows


# function, its parts, samples of each
MEASURED = {"solvers": (solvers, ("plain", "strong", "interval"), 200), "sizes": (sizes, ("digits", "scenes"), 120)}


def measure_part(name: str, group: str, seed: int, samples: int, folder: Path) -> list[dict]:
    "One part of such a study with one seed, on one thread, or what an earlier call found."
    torch.set_num_threads(1)
    work = partial(MEASURED[name][0], group, seed, samples)
    return keep(folder/f"{name}-{group}-{seed}-{samples}.json", work)


# --- the command ---

def parse(parser: ArgumentParser, arguments: list[str]) -> Namespace:
    every = [*TRAINED, *MEASURED]
    parser.add_argument("studies", nargs="+", choices=[*every, "all"], metavar="STUDY",
                        help=f"{', '.join(every)} or all")
    parser.add_argument("--scale", choices=SCALES, default="digits", help="data and budget of the studies that train")
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time; above 1 each has one thread")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--runs", type=Path, default=ROOT/"runs/studies", help="where single runs are kept")
    parser.add_argument("--out", type=Path, default=ROOT/"nbs/results", help="folder of the results")
    for name in ("steps", "batch", "samples"):
        parser.add_argument(f"--{name}", type=int, help="instead of the scale's, to try things out")
    parser.add_argument("--data", help="a folder of class folders instead of the scale's data, to try things out")
    given = parser.parse_args(arguments)
    for name, least in {"seeds": 1, "jobs": 1, "steps": 1, "batch": 1, "samples": 0}.items():
        n = getattr(given, name)
        if n is not None and n < least: parser.error(f"argument --{name}: must be at least {least}, got {n}")
    if "all" in given.studies: given.studies = every
    small = [name for name in given.studies if name in MEASURED]
    if given.scale != "digits" and small:
        parser.error(f"argument --scale: {', '.join(small)} measure the shipped models, which have one scale: digits")
    try: pick_device(given.device)
    except ValueError as error: parser.error(str(error))
    return given


def write_results(given: Namespace, name: str, rows: list[dict], **about) -> None:
    "A results file, a line for each run."
    ending = "" if given.scale == "digits" else f"-{given.scale}"
    made_by = provenance(pick_device(given.device)) | {"commit": source_commit()}
    command = f"python tools/measure studies {name} --seeds {given.seeds}"
    if ending: command += f" --scale {given.scale}"
    if given.jobs > 1:                                      # then runs have one thread, which decides the last digits
        command += f" --jobs {given.jobs}"
        made_by["threads"] = 1
    record = {"command": command, "seeds": list(range(given.seeds)), **about, "made_by": made_by}
    out = given.out/f"{name}{ending}.json"
    write_whole(out, json.dumps(record)[:-1] + ', "rows": [\n' + ",\n".join(map(json.dumps, rows)) + "\n]}\n")
    print(out)


def train_all(given: Namespace, names: list[str]) -> None:
    asked = {name: getattr(given, name) for name in ("steps", "batch", "samples", "data")}
    scale = replace(SCALES[given.scale], **{name: value for name, value in asked.items() if value is not None})
    seeds, times = range(given.seeds), {}

    def timed(name: str, field: Arm, twin: Arm) -> float:
        "Steps of the second arm in the time of one of the first; measured once, and kept."
        threads = torch.get_num_threads()
        if given.jobs > 1: torch.set_num_threads(1)         # as the runs will have it
        work = partial(time_arms, scale, (field, twin), given.runs/"timing", device=given.device)
        times[name] = keep(given.runs/f"time-{given.scale}-{name.replace(' ', '-')}.json", work)
        torch.set_num_threads(threads)
        return times[name][twin.name]["ratio"]

    plans = {name: TRAINED[name](scale, timed) for name in names}
    once = {replace(arm, name=""): arm for plan in plans.values() for arm in plan}      # an arm that two studies share
    with progress(len(once) * given.seeds, "studies", "run") as bar:
        for found in run_study(scale, list(once.values()), seeds, given.runs, given.jobs, given.device):
            bar.update()
            bar.set_postfix_str(f"{found['arm']}, seed {found['seed']}: {found['marks'][-1]['loss']:.4f}")
    for name, plan in plans.items():
        rows = list(run_study(scale, plan, seeds, given.runs, 1, given.device))         # all kept by now: read
        about = {"scale": asdict(scale), "arms": [asdict(arm) for arm in plan]}
        write_results(given, name, rows, **about, **({"times": times} if name == "heads" else {}))


def measure_all(given: Namespace, names: list[str]) -> None:
    parts = [(name, group, seed, given.samples or MEASURED[name][2], given.runs)
             for seed in range(given.seeds) for name in names for group in MEASURED[name][1]]
    with progress(len(parts), "studies", "part") as bar:
        for _ in run_all(measure_part, parts, given.jobs): bar.update()
    weights = {model: fingerprint(from_pretrained(model)) for model in ("digits", "scenes")}
    for name in names:
        mine = [part for part in parts if part[0] == name]
        rows = [found for part in mine for found in measure_part(*part)]
        write_results(given, name, rows, samples=mine[0][3], weights=weights)


def main(parser: ArgumentParser, arguments: list[str]) -> None:
    given = parse(parser, arguments)
    given.runs.mkdir(parents=True, exist_ok=True)
    for work, table in ((train_all, TRAINED), (measure_all, MEASURED)):
        if names := [name for name in given.studies if name in table]: work(given, names)
