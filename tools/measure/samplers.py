"""Measure the shipped model by sampler, steps and guidance: `python tools/sampler_table.py` writes nbs/results/samplers.json.

Each row is some hundred digits against the training digits, with the processor time an image took on one core. It takes about
ten minutes; notebook 12 draws the result.
"""

import argparse
import time
from itertools import product
from pathlib import Path

import torch

from pixnerd.checkpoints import from_pretrained
from pixnerd.sample_folders import draw_batch
from pixnerd.evaluation import evaluate_digits
from pixnerd.metrics import fidelity_digits
from pixnerd.records import fingerprint, source_commit, write_record
from pixnerd.records import provenance

SOLVERS = {"euler": {"method": "euler"}, "heun": {"method": "heun"}, "adams, order 2": {"method": "adams", "order": 2}, "sde": {"method": "sde"}}

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--samples", type=int, default=300, help="images for each row")
parser.add_argument("--steps", type=int, nargs="+", default=[4, 12, 25], help="counts of steps")
parser.add_argument("--scales", type=float, nargs="+", default=[1., 2., 3.], help="guidance scales")
arguments = parser.parse_args()

torch.set_num_threads(1)
model, labels, rows = from_pretrained("digits"), torch.arange(arguments.samples) % 10, []
draw_batch(model, range(10), labels[:10], torch.full((10,), 10), steps=1)                    # the first batch is slower
for (name, solver), steps, scale in product(SOLVERS.items(), arguments.steps, arguments.scales):
    start = time.process_time()
    images = torch.cat([draw_batch(model, numbers.tolist(), labels[numbers], torch.full_like(numbers, 10), steps=steps, guidance_scale=scale, **solver)
                        for numbers in torch.arange(arguments.samples).split(100)])
    seconds = (time.process_time() - start) / arguments.samples     # of one core, so other work on the machine counts little
    judged = {k: v for k, v in (evaluate_digits(images, labels) | fidelity_digits(images)).items() if k not in ("samples", "judge_on_held_out", "fid-digits_of_held_out")}
    rows.append({"method": name, "steps": steps, "guidance_scale": scale, "cpu_seconds_per_image": round(seconds, 5), **{k: round(v, 5) for k, v in judged.items()}})
    print(rows[-1], flush=True)
made_by = provenance(torch.device("cpu")) | {"commit": source_commit()}
out = Path(__file__).resolve().parent.parent/"nbs"/"results"/"samplers.json"
out.parent.mkdir(exist_ok=True)
write_record(out, {"model": "digits", "weights": fingerprint(model), "samples": arguments.samples, "seed": 0, "batch": 100, "made_by": made_by, "rows": rows})
