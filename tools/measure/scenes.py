"""Measure a text model on the drawn world, into nbs/results/scenes.json.

Six skills on held-out and on training's compositions, each beside the shuffled-prompt control; by guidance scale,
time shift, solver and steps, and size; and the first pictures that were wrong. About ten minutes on one CPU core.
"""

import argparse
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import torch

from pixnerd.checkpoints import from_pretrained
from pixnerd.command import progress
from pixnerd.records import fingerprint, pick_device, provenance, read_record, source_commit, write_record
from pixnerd.run_folder import latest_checkpoint
from pixnerd.sample_folders import TextSampler
from pixnerd.samplers import RECOMMENDED_TEXT, SamplerSettings
from pixnerd.scene_eval import judge_scene, scene_prompts, score_scenes
from pixnerd.scene_reading import read_scenes
from pixnerd.text_to_image import encoder_of

ROOT = Path(__file__).resolve().parents[2]
GROUPS = ("table", "guidance", "time_shift", "adams", "euler", "size")


class Job(NamedTuple):
    "One score: of some prompts, drawn with some settings at some size. Jobs that agree from `suite` on are drawn once."
    group: str # where in the file it goes; "size, evaluated" belongs to "size"
    name: str # which of its group
    suite: str # the prompts: "held-out", "train", or "few"
    settings: SamplerSettings
    size: int # pixels
    off_grid: str # what the fields are told between the trained pixels


def make_jobs(settings: SamplerSettings, side: int, off_grid: str) -> list[Job]:
    "Everything that is measured. The usual settings are part of every sweep, and drawn once."
    def job(group, name, suite="few", size=side, way=off_grid, **changes):
        return Job(group, str(name), suite, replace(settings, **changes), size, way)
    jobs = [job("table", split, split) for split in ("held-out", "train")]
    jobs += [job("guidance", v, guidance_scale=v) for v in (1., 2., 3., 4., 6., 8.)]
    jobs += [job("time_shift", v, time_shift=v) for v in (1., 2., 3., 5.)]
    jobs += [job(way, n, method=way, steps=n) for way in ("adams", "euler") for n in (4, 6, 10, 15, 25, 50)]
    for way in (off_grid, *{"evaluate", "interpolate"} - {off_grid}):                        # as it ships first
        group = "size" if way == off_grid else f"size, {way}d"
        jobs += [job(group, f"{side * k} px", size=side * k, way=way) for k in (1, 2, 4)]
    return jobs


def failures(prompts: Mapping, images: Mapping, most: int = 3) -> list[dict]:
    "The first pictures of each skill that were wrong: number, caption, why."
    found, start = [], 0
    for skill, texts in prompts.items():
        verdicts = [judge_scene(text, reading.things) for text, reading in zip(texts, read_scenes(images[skill]))]
        found += [{"number": start + i, "skill": skill, "caption": texts[i], "reason": v.reason}
                  for i, v in enumerate(verdicts) if not v.right][:most]
        start += len(texts)
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="tools/measure scenes", description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="scenes", help="a shipped model, a folder or a run")
    parser.add_argument("--out", type=Path, default=ROOT/"nbs"/"results"/"scenes.json", help="file to write")
    parser.add_argument("--count", type=int, default=100, help="prompts of each skill in the table")
    parser.add_argument("--sweep-count", type=int, default=40, help="prompts of each skill in the sweeps")
    parser.add_argument("--only", choices=GROUPS, help="measure this group again and keep the others")
    parser.add_argument("--seed", type=int, default=0, help="start of all randomness")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    options = parser.parse_args(arguments)

    device = pick_device(options.device)
    model = from_pretrained(latest_checkpoint(options.model) or options.model, device=device)
    settings, encode = replace(RECOMMENDED_TEXT, seed=options.seed), encoder_of(model)
    suites = {split: scene_prompts(options.count, split, options.seed) for split in ("held-out", "train")}
    suites["few"] = scene_prompts(options.sweep_count, "held-out", options.seed)
    jobs = [job for job in make_jobs(settings, model.config.image_size, model.config.off_grid)
            if options.only in (None, job.group.partition(",")[0])]

    usual = asdict(SamplerSettings())
    sampler = {name: value for name, value in asdict(settings).items() if name != "seed" and value != usual[name]}
    record = {"model": str(options.model), "weights": fingerprint(model), "sampler": sampler, "seed": options.seed}
    if options.only:
        before = read_record(options.out)
        made_with = SamplerSettings(**before["sampler"], seed=before["seed"])
        if before["weights"] != record["weights"] or made_with != settings:
            raise SystemExit(f"{options.out} is of other weights, sampler or seed: measure everything")
        record = before
    record["made_by"] = provenance(device) | {"commit": source_commit()}

    found = {job[2:]: None for job in jobs}
    with progress(sum(sum(map(len, suites[suite].values())) for suite, *_ in found), "scenes", "image") as bar:
        for suite, sampling, size, off_grid in found:
            paint, drawn = TextSampler(model.with_config(off_grid=off_grid), encode, sampling, size), []
            texts = [text for some in suites[suite].values() for text in some]
            for i in range(0, len(texts), 50):
                some = texts[i:i + 50]
                drawn.append(paint(some, range(i, i + len(some))))
                bar.update(len(some))
            images = dict(zip(suites[suite], torch.cat(drawn).split([len(some) for some in suites[suite].values()])))
            found[suite, sampling, size, off_grid] = score_scenes(suites[suite], images, options.seed)
            if suite == "held-out": record["failures"] = failures(suites[suite], images)
    for job in jobs: record.setdefault(job.group, {})[job.name] = found[job[2:]]
    write_record(options.out, record)

    for group, results in record.items():
        if group.partition(",")[0] not in GROUPS: continue
        for name, result in results.items():
            rate, control = result["overall"], result["control"]
            print(f"{group:16s} {name:9s} {rate['rate']:.3f} [{rate['low']:.3f}, {rate['high']:.3f}]  "
                  f"control {control['rate']:.3f}")
    print(options.out)


if __name__ == "__main__": main()
