"""Train the classifier of digits and put it into the package, pixnerd/weights/reader/."""

import json
import time
from argparse import ArgumentParser

import torch
from safetensors.torch import save_file

from pixnerd.alignment import CLASSIFIER_FILE, train_digit_classifier
from pixnerd.digits import load_digits
from pixnerd.records import provenance, write_record, write_whole


def main(parser: ArgumentParser, arguments: list[str]) -> None:
    parser.parse_args(arguments)
    start = time.perf_counter()
    classifier, held = train_digit_classifier(), load_digits("held-out")
    weights = {name: w.contiguous() for name, w in classifier.state_dict().items()}
    CLASSIFIER_FILE.parent.mkdir(parents=True, exist_ok=True)
    write_whole(CLASSIFIER_FILE, lambda path: save_file(weights, path, metadata={"format": "pt"}))
    accuracy = (classifier(held.images).argmax(1) == held.labels).double().mean().item()
    record = {"command": "python tools/measure reader", "epochs": 20, "seed": 0, "accuracy_on_held_out": accuracy,
              "seconds": round(time.perf_counter() - start, 1), "made_by": provenance(torch.device("cpu"))}
    write_record(CLASSIFIER_FILE.with_name("training.json"), record)
    print(json.dumps(record, indent=2))
