"""Measure a text model on the drawn world: `python tools/scene_eval.py` writes nbs/results/scenes.json.

Six skills on held-out and on training's compositions, each beside the shuffled-prompt control; by guidance scale, time shift, solver
and steps, and size; and the first pictures that were wrong. About ten minutes on one CPU core.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch

from pixnerd.checkpoints import from_pretrained
from pixnerd.records import write_whole
from pixnerd.command import progress
from pixnerd.sample_folders import TextSampler
from pixnerd.records import fingerprint, source_commit
from pixnerd.model import PixNerd
from pixnerd.samplers import RECOMMENDED_TEXT
from pixnerd.scene_eval import judge_scene, scene_prompts, score_scenes
from pixnerd.scene_reading import read_scenes
from pixnerd.text_to_image import encoder_of
from pixnerd.run_folder import latest_checkpoint
from pixnerd.records import pick_device, provenance

ROOT = Path(__file__).resolve().parent.parent
GUIDANCE, SHIFTS, STEPS, SIZES = (1., 2., 3., 4., 6., 8.), (1., 2., 3., 5.), (4, 6, 10, 15, 25, 50), (1, 2, 4)

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--model", default="scenes", help="a shipped model, a folder or a run")
parser.add_argument("--out", type=Path, default=ROOT/"nbs"/"results"/"scenes.json", help="file to write")
parser.add_argument("--count", type=int, default=100, help="prompts of each skill in the table")
parser.add_argument("--sweep-count", type=int, default=40, help="prompts of each skill in the sweeps")
parser.add_argument("--only", default="", help="measure this group again and keep the others: table, guidance, time_shift, adams, euler or size")
parser.add_argument("--seed", type=int, default=0, help="start of all randomness")
parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
a = parser.parse_args()

device = pick_device(a.device)
model = from_pretrained(latest_checkpoint(a.model) or a.model, device=device)
encode, side = encoder_of(model), model.config.image_size
models = {"": model}
for between in {"evaluate", "interpolate"} - {model.config.between}:       # the same weights, told otherwise what is between the trained pixels
    with torch.device("meta"): models[between] = PixNerd(replace(model.config, off_grid=off_grid)).eval()
    models[between].load_state_dict(model.state_dict(), assign=True)
table, sweep = ({split: scene_prompts(count, split, a.seed) for split in ("held-out", "train")} for count in (a.count, a.sweep_count))
jobs = [("table", split, prompts, {}, side, "") for split, prompts in table.items()]
few = sweep["held-out"]
jobs += [("guidance", g, few, {"guidance_scale": g}, side, "") for g in GUIDANCE] + [("time_shift", s, few, {"time_shift": s}, side, "") for s in SHIFTS]
jobs += [(method, n, few, {"method": method, "steps": n}, side, "") for method in ("adams", "euler") for n in STEPS] + [(f"size, {which}" if which else "size", f"{side * k} px", few, {}, side * k, which) for which in models for k in SIZES]
jobs = [job for job in jobs if not a.only or job[0].partition(",")[0] == a.only]
if not jobs: raise SystemExit(f"only must be one of table, guidance, time_shift, adams, euler, size, got {a.only!r}")


def draw(which: str, prompts: dict, changes: dict, size: int, bar) -> dict:
    "One picture a prompt; picture number i starts from noise (seed, i)."
    painter, texts, images = TextSampler(models[which], encode, RECOMMENDED_TEXT | changes, a.seed, size), [t for some in prompts.values() for t in some], []
    for i in range(0, len(texts), 50):
        images.append(painter(texts[i:i + 50], range(i, min(i + 50, len(texts)))))
        bar.update(len(images[-1]))
    return dict(zip(prompts, torch.cat(images).split([len(some) for some in prompts.values()])))


def failures(prompts: dict, images: dict, most: int = 3) -> list[dict]:
    "The first pictures of each skill that were wrong: number, caption, why."
    found, start = [], 0
    for skill, texts in prompts.items():
        verdicts = [judge_scene(t, r.things) for t, r in zip(texts, read_scenes(images[skill]))]
        wrong = [{"number": start + i, "skill": skill, "caption": texts[i], "reason": v.reason} for i, v in enumerate(verdicts) if not v.right]
        found, start = found + wrong[:most], start + len(texts)
    return found


record, kept = {"model": str(a.model), "weights": fingerprint(model), "sampler": RECOMMENDED_TEXT, "seed": a.seed, "made_by": provenance(device) | {"commit": source_commit()}}, {}
if a.only:
    before = json.loads(a.out.read_text())
    if any(before[name] != record[name] for name in ("weights", "sampler", "seed")): raise SystemExit(f"{a.out} is of other weights, sampler or seed: measure everything")
    record = before | {"made_by": record["made_by"]}
with progress(sum(len(some) for _, _, prompts, *_ in jobs for some in prompts.values()), "scenes", "image") as bar:
    for group, name, prompts, changes, size, which in jobs:
        key = (id(prompts), json.dumps(RECOMMENDED_TEXT | changes, sort_keys=True), size, which)
        if key in kept: bar.update(sum(map(len, prompts.values())))            # the usual settings are part of every sweep
        else:
            images = draw(which, prompts, changes, size, bar)
            kept[key] = score_scenes(prompts, images, a.seed)
            if group == "table" and name == "held-out": record["failures"] = failures(prompts, images)
        record.setdefault(group, {})[str(name)] = kept[key]
write_whole(a.out, lambda path: path.write_text(json.dumps(record, indent=1) + "\n"))
print(*(f"{group:10s} {name:9s} {r['overall']['rate']:.3f} [{r['overall']['low']:.3f}, {r['overall']['high']:.3f}]  control {r['control']['rate']:.3f}"
        for group in record if group.partition(",")[0] in ("table", "guidance", "time_shift", "adams", "euler", "size") for name, r in record[group].items()), a.out, sep="\n")
