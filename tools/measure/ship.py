"""Put a trained run into the package: `python tools/measure ship runs/digits digits` writes pixnerd/weights/digits/.

The weights are the run's averaged ones in half precision. Beside them, `training.json` and `log.jsonl` say what made
them and `metrics.json` how good some hundred of their samples are, drawn from the files as they are shipped: digits by
an independent judge, scenes by six skills on compositions that were held out.
"""

import json
import shlex
import shutil
from argparse import ArgumentParser
from dataclasses import asdict, fields
from pathlib import Path

import torch

from pixnerd.checkpoints import from_pretrained, save_pretrained
from pixnerd.evaluation import evaluate_digits
from pixnerd.metrics import fidelity_digits
from pixnerd.records import provenance, read_record, write_record
from pixnerd.run_folder import latest_checkpoint, read_log
from pixnerd.run_settings import TrainConfig
from pixnerd.sample_folders import TextSampler, draw_images
from pixnerd.samplers import recommended
from pixnerd.scene_eval import draw_suite, scene_prompts, score_scenes
from pixnerd.text_to_image import encoder_of

ROOT = Path(__file__).resolve().parents[2]


def judge(model) -> dict:
    settings = recommended(model.config)
    if model.config.text_width:
        prompts = scene_prompts(50, "held-out")
        images = draw_suite(TextSampler(model, encoder_of(model), settings), prompts)
        return {"held-out": score_scenes(prompts, images)}
    labels = [i % 10 for i in range(500)]
    images = draw_images(model, labels, settings)
    return evaluate_digits(images, torch.tensor(labels)) | fidelity_digits(images)


def command_of(config: dict) -> str:
    "The words that train such a run: every setting that decides the weights and is not what it would be anyway."
    chosen = {name: config[name] for name in ("data", "cond", "preset", "start_from") if name in config}
    usual = asdict(TrainConfig(**chosen)) | {f.name: f.default for f in fields(TrainConfig) if f.name in chosen}
    usual["preset"] = TrainConfig(data=config["data"], cond=config.get("cond", "auto")).preset
    words = ["pixnerd-train"]
    for f in fields(TrainConfig):
        value = config.get(f.name, usual[f.name])
        if f.metadata["free"] or value == usual[f.name]: continue
        name = f.name.replace("_", "-")
        words += [f"--{'' if value else 'no-'}{name}"] if isinstance(value, bool) else [f"--{name}", str(value)]
    return shlex.join(words)


def main(parser: ArgumentParser, arguments: list[str]) -> None:
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("name", help="of the shipped model")
    parser.add_argument("--note", help="what else should be known of the run")
    a = parser.parse_args(arguments)
    config = read_record(a.run/"config.json")
    del config["out"]
    made_by = json.loads((a.run/"made_by.json").read_text(encoding="utf-8"))        # a list: of every start
    record = {"command": command_of(config), "config": config, "seconds": round(read_log(a.run)[-1]["seconds"]),
              "made_by": made_by} | ({"note": a.note} if a.note else {})
    folder = ROOT/"pixnerd"/"weights"/a.name
    save_pretrained(from_pretrained(latest_checkpoint(a.run)), folder, torch.float16)
    shutil.copy(a.run/"log.jsonl", folder)
    write_record(folder/"training.json", record)
    model = from_pretrained(folder)
    sampler = asdict(recommended(model.config))
    metrics = judge(model) | {"seed": sampler.pop("seed"), "sampler": sampler,
                              "made_by": provenance(torch.device("cpu"))}
    write_record(folder/"metrics.json", metrics)
    print(folder.relative_to(ROOT), f"{(folder/'model.safetensors').stat().st_size / 1e6:.1f} MB")
    print(json.dumps(record), json.dumps(metrics), sep="\n")
