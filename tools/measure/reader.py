"""Train the reader of digits and put it into the package: `python tools/reader.py` writes pixnerd/weights/reader/."""

import json
import time

import torch
from safetensors.torch import save_file

from pixnerd.alignment import READER, train_digit_classifier
from pixnerd.records import write_whole
from pixnerd.digits import load_digits
from pixnerd.records import provenance

start = time.perf_counter()
reader = train_digit_classifier()
READER.parent.mkdir(parents=True, exist_ok=True)
write_whole(READER, lambda path: save_file({name: w.contiguous() for name, w in reader.state_dict().items()}, path, metadata={"format": "pt"}))
held = load_digits("held-out")
record = {"command": "python tools/reader.py", "epochs": 20, "seed": 0, "seconds": round(time.perf_counter() - start, 1),
          "accuracy_on_held_out": (reader(held.images).argmax(1) == held.labels).double().mean().item(), "made_by": provenance(torch.device("cpu"))}
write_whole(READER.with_name("training.json"), lambda path: path.write_text(json.dumps(record, indent=2) + "\n"))
print(json.dumps(record, indent=2))
