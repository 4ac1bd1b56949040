"""Measure what alignment does on the digits: `python tools/alignment.py` writes nbs/results/alignment.json.

For each seed the digits preset is trained twice, with and without alignment to the reader of digits, everything else equal:
the same images, noise and times at every step. Logged: the flow-matching loss, and what 200 samples score at the end.
"""

import argparse
import json
import tempfile
from pathlib import Path

import torch

from pixnerd import from_pretrained
from pixnerd.checkpoints import write_whole
from pixnerd.cli import draw_images, train_with_progress
from pixnerd.evaluation import evaluate_digits
from pixnerd.samplers import RECOMMENDED
from pixnerd.training import TrainConfig, latest_checkpoint, provenance, read_log

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--steps", type=int, default=400, help="training steps of each run")
parser.add_argument("--seeds", type=int, default=3, help="how many seeds")
parser.add_argument("--block", type=int, default=2, help="block that is aligned")
given = parser.parse_args()

found = []
with tempfile.TemporaryDirectory() as folder:
    for seed in range(given.seeds):
        for align in ("", "digits"):
            config = TrainConfig(out=f"{folder}/{seed}{align}", steps=given.steps, lr=4e-3, ema=.99, seed=seed, align=align, align_block=given.block, log_every=20, save_every=given.steps)
            if not train_with_progress(config): raise SystemExit(130)
            labels = [i % 10 for i in range(200)]
            images = draw_images(from_pretrained(latest_checkpoint(config.out)), labels, **RECOMMENDED)
            log = read_log(config.out)
            found.append({"seed": seed, "align": align, "step": [line["step"] for line in log], "loss": [line["loss"] for line in log],
                          "alignment": [line.get("alignment") for line in log], "scores": evaluate_digits(images, torch.tensor(labels))})
record = {"command": f"python tools/alignment.py --steps {given.steps} --seeds {given.seeds} --block {given.block}", "runs": found, "made_by": provenance(torch.device("cpu"))}
out = Path(__file__).resolve().parent.parent/"nbs"/"results"/"alignment.json"
out.parent.mkdir(exist_ok=True)
write_whole(out, lambda path: path.write_text(json.dumps(record) + "\n"))
for run in found: print(run["seed"], run["align"] or "none", f"{sum(run['loss'][-3:]) / 3:.4f}", run["scores"])
