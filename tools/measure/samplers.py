"""Measure the shipped model by sampler, steps and guidance, into nbs/results/samplers.json.

Each row is some hundred digits against the training digits, with the processor time an image took on one core.
Four solvers take about ten minutes; notebook 12 draws the result.
"""

import time
from argparse import ArgumentParser
from dataclasses import replace
from itertools import product
from pathlib import Path

import torch

from pixnerd.checkpoints import from_pretrained
from pixnerd.records import fingerprint, provenance, source_commit, write_record
from pixnerd.sample_folders import draw_images
from pixnerd.samplers import METHODS, SamplerSettings, labelled_solvers
from pixnerd.studies import score_digits

ROOT = Path(__file__).resolve().parents[2]


def row_name(s: SamplerSettings) -> str: # "heun"; "adams, order 2"
    return f"{s.method}, order {s.order}" if METHODS[s.method].orders else s.method


def measure_row(model, s: SamplerSettings, count: int) -> dict:
    labels = torch.arange(count) % 10
    start = time.process_time()
    images = draw_images(model, labels.tolist(), s)
    seconds = (time.process_time() - start) / count             # of one core: other work on the machine counts little
    found = {"cpu_seconds_per_image": seconds, **score_digits(images, labels)}
    return {"method": row_name(s), "steps": s.steps, "guidance_scale": s.guidance_scale,
            **{name: round(value, 5) for name, value in found.items()}}


def main(parser: ArgumentParser, arguments: list[str]) -> None:
    known = {row_name(s): s for s in labelled_solvers().values()}
    parser.add_argument("--solvers", nargs="+", choices=known, metavar="NAME", help="; ".join(known),
                        default=["euler", "heun", "adams, order 2", "sde"])
    parser.add_argument("--samples", type=int, default=300, help="images for each row")
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 12, 25])
    parser.add_argument("--scales", type=float, nargs="+", default=[1., 2., 3.], help="of guidance")
    a = parser.parse_args(arguments)
    torch.set_num_threads(1)
    model, rows = from_pretrained("digits"), []
    measure_row(model, SamplerSettings(steps=1), 100)                                       # the first batch is slower
    for name, steps, scale in product(a.solvers, a.steps, a.scales):
        rows.append(measure_row(model, replace(known[name], steps=steps, guidance_scale=scale), a.samples))
        print(rows[-1], flush=True)
    made_by = provenance(torch.device("cpu")) | {"commit": source_commit()}
    write_record(ROOT/"nbs/results/samplers.json", {
        "model": "digits", "weights": fingerprint(model), "samples": a.samples, "seed": 0, "batch": 100,
        "made_by": made_by, "rows": rows})
