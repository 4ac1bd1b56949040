"""Measure a text model on the drawn world, into nbs/results/scenes.json.

Six skills on held-out and on training's compositions, each beside the shuffled-prompt control; by guidance scale,
time shift, solver and steps, and size; and the first pictures that were wrong. About ten minutes on one CPU core.
"""

from argparse import ArgumentParser
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

from pixnerd.checkpoints import from_pretrained
from pixnerd.command import progress
from pixnerd.records import fingerprint, pick_device, provenance, read_record, source_commit, write_record
from pixnerd.sample_folders import TextSampler
from pixnerd.samplers import RECOMMENDED_TEXT, SamplerSettings
from pixnerd.scene_eval import draw_suite, judge_scene, scene_prompts, score_scenes
from pixnerd.scene_reading import read_scenes
from pixnerd.text_to_image import encoder_of

ROOT = Path(__file__).resolve().parents[2]
GROUPS = ("table", "guidance", "time_shift", "adams", "euler", "size")


class Drawing(NamedTuple):
    "What is drawn for a score. Scores of the same drawing share it."
    suite: str # the prompts: "held-out", "train", or "few"
    settings: SamplerSettings
    size: int # pixels
    off_grid: str # what the fields are told between the trained pixels


def plan(usual: Drawing) -> list[tuple[str, str, Drawing]]: # group, name, drawing; "size, evaluated" belongs to "size"
    "Everything that is measured. The usual settings are part of every sweep."
    def sweep(group, **changes):
        return [(group, str(values[0]), usual._replace(settings=replace(usual.settings, **dict(zip(changes, values)))))
                for values in zip(*changes.values())]
    steps = (4, 6, 10, 15, 25, 50)
    jobs = [("table", split, usual._replace(suite=split)) for split in ("held-out", "train")]
    jobs += sweep("guidance", guidance_scale=(1., 2., 3., 4., 6., 8.))
    jobs += sweep("time_shift", time_shift=(1., 2., 3., 5.))
    for method in ("adams", "euler"): jobs += sweep(method, steps=steps, method=(method,) * len(steps))
    for way in ("evaluate", "interpolate"):
        group = "size" if way == usual.off_grid else f"size, {way}d"
        jobs += [(group, f"{k * usual.size} px", usual._replace(size=k * usual.size, off_grid=way)) for k in (1, 2, 4)]
    return jobs


def failures(prompts: Mapping, images: Mapping, most: int = 3) -> list[dict]:
    "The first pictures of each skill that were wrong."
    found, start = [], 0
    for skill, texts in prompts.items():
        verdicts = [judge_scene(text, reading.things) for text, reading in zip(texts, read_scenes(images[skill]))]
        found += [{"number": start + i, "skill": skill, "caption": texts[i], "reason": v.reason}
                  for i, v in enumerate(verdicts) if not v.right][:most]
        start += len(texts)
    return found


def main(parser: ArgumentParser, arguments: list[str]) -> None:
    parser.add_argument("--model", default="scenes", help="a shipped model, a folder or a run")
    parser.add_argument("--out", type=Path, default=ROOT/"nbs/results/scenes.json", help="file to write")
    parser.add_argument("--count", type=int, default=100, help="prompts of each skill in the table")
    parser.add_argument("--sweep-count", type=int, default=40, help="prompts of each skill in the sweeps")
    parser.add_argument("--only", choices=GROUPS, help="measure this group again and keep the others")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    a = parser.parse_args(arguments)

    device = pick_device(a.device)
    model = from_pretrained(a.model, device=device)
    settings, encode = replace(RECOMMENDED_TEXT, seed=a.seed), encoder_of(model)
    suites = {split: scene_prompts(a.count, split, a.seed) for split in ("held-out", "train")}
    suites["few"] = scene_prompts(a.sweep_count, "held-out", a.seed)
    jobs = [job for job in plan(Drawing("few", settings, model.config.image_size, model.config.off_grid))
            if a.only in (None, job[0].partition(",")[0])]

    usual = asdict(SamplerSettings())
    sampler = {name: value for name, value in asdict(settings).items() if name != "seed" and value != usual[name]}
    record = {"model": str(a.model), "weights": fingerprint(model), "sampler": sampler, "seed": a.seed}
    if a.only:
        before = read_record(a.out)
        made_with = SamplerSettings(**before["sampler"], seed=before["seed"])
        if before["weights"] != record["weights"] or made_with != settings:
            raise SystemExit(f"{a.out} is of other weights, sampler or seed: measure everything")
        record = before
    record["made_by"] = provenance(device) | {"commit": source_commit()}

    found = dict.fromkeys(drawing for *_, drawing in jobs)
    with progress(sum(sum(map(len, suites[drawing.suite].values())) for drawing in found), "scenes", "image") as bar:
        for drawing in found:
            prompts = suites[drawing.suite]
            sampler = TextSampler(model.with_config(off_grid=drawing.off_grid), encode, drawing.settings, drawing.size)
            images = draw_suite(sampler, prompts, each=bar.update)
            found[drawing] = score_scenes(prompts, images, a.seed)
            if drawing.suite == "held-out": record["failures"] = failures(prompts, images)
    for group, name, drawing in jobs:
        record.setdefault(group, {})[name] = found[drawing]
        rate, control = (found[drawing][what]["rate"] for what in ("overall", "control"))
        print(f"{group:18s} {name:9s} {rate:.3f}  control {control:.3f}")
    write_record(a.out, record)
    print(a.out)
