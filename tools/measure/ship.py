"""Put a trained run into the package: `python tools/ship.py runs/digits digits` writes pixnerd/weights/digits/.

The weights are the run's averaged ones in half precision. Beside them, `training.json` and `log.jsonl` say what made them and
`metrics.json` how good some hundred of their samples are, drawn from the files as they are shipped: digits by an independent judge,
scenes by six skills on compositions that were held out.
"""

import argparse
import json
import shutil
from dataclasses import fields
from pathlib import Path

import torch

from pixnerd.checkpoints import from_pretrained, save_pretrained
from pixnerd.records import write_whole
from pixnerd.cli import draw_images
from pixnerd.sample_folders import TextSampler
from pixnerd.evaluation import evaluate_digits
from pixnerd.metrics import fidelity_digits
from pixnerd.samplers import RECOMMENDED, RECOMMENDED_TEXT
from pixnerd.scene_eval import scene_prompts, score_scenes
from pixnerd.text_to_image import encoder_of
from pixnerd.run_settings import TrainConfig
from pixnerd.run_folder import latest_checkpoint, read_log
from pixnerd.records import provenance

ROOT = Path(__file__).resolve().parent.parent


def judge_digits(model) -> dict:
    "What an independent judge makes of 500 digits."
    labels = [i % 10 for i in range(500)]
    images = draw_images(model, labels, RECOMMENDED)
    return evaluate_digits(images, torch.tensor(labels)) | fidelity_digits(images)


def judge_text(model, count: int = 50) -> dict:
    "Six skills on held-out compositions, one picture a prompt."
    prompts, painter = scene_prompts(count, "held-out"), TextSampler(model, encoder_of(model), RECOMMENDED_TEXT)
    texts = [text for some in prompts.values() for text in some]
    images = torch.cat([painter(texts[i:i + count], range(i, i + count)) for i in range(0, len(texts), count)])
    return {"held-out": score_scenes(prompts, dict(zip(prompts, images.split(count))))}


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("run", type=Path, help="folder of a finished run")
parser.add_argument("name", help="name of the shipped model")
parser.add_argument("--note", help="what else should be known of the run")
arguments = parser.parse_args()

config = json.loads((arguments.run/"config.json").read_text())
del config["out"]
told = [(f.name.replace("_", "-"), config[f.name]) for f in fields(TrainConfig) if config.get(f.name, f.default) != f.default and not f.metadata["free"]]      # what decides the weights
record = {"command": " ".join(["pixnerd-train", *(f"--{'' if v is not False else 'no-'}{k}" + ("" if isinstance(v, bool) else f" {v}") for k, v in told)]), "config": config,
          "seconds": round(read_log(arguments.run)[-1]["seconds"]), "made_by": json.loads((arguments.run/"made_by.json").read_text())} | ({"note": arguments.note} if arguments.note else {})
folder = save_pretrained(from_pretrained(latest_checkpoint(arguments.run)), ROOT/"pixnerd"/"weights"/arguments.name, torch.float16)
shutil.copy(arguments.run/"log.jsonl", folder)
write_whole(folder/"training.json", lambda path: path.write_text(json.dumps(record, indent=2) + "\n"))
model = from_pretrained(folder)
metrics = judge_text(model) if model.config.text_width else judge_digits(model)
metrics |= {"seed": 0, "sampler": RECOMMENDED_TEXT if model.config.text_width else RECOMMENDED, "made_by": provenance(torch.device("cpu"))}
write_whole(folder/"metrics.json", lambda path: path.write_text(json.dumps(metrics, indent=2) + "\n"))
print(folder.relative_to(ROOT), f"{(folder/'model.safetensors').stat().st_size / 1e6:.1f} MB", json.dumps(record), json.dumps(metrics), sep="\n")
