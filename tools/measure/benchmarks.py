"""Measure what notebook 16 shows, in one call: nbs/results/benchmarks-cpu.json, or benchmarks-gpu.json with --device cuda.

    .venv/bin/python tools/benchmarks.py                      a quiet machine, about ten minutes on two CPU cores
    .venv/bin/python tools/benchmarks.py --device cuda        one GPU with 80 GB: XL/16 in bfloat16, eager and compiled; also runs the kernel's tests
    .venv/bin/python tools/benchmarks.py --rehearse --out X   the same series on tiny models, in CPU mode: a minute
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

import torch

from pixnerd.benchmarks import BenchConfig, as_table, bench, training_memory
from pixnerd.costs import account, distances, roofline
from pixnerd.records import write_whole
from pixnerd.model import PRESETS
from pixnerd.records import provenance
from pixnerd.products import onednn_pays

ROOT = Path(__file__).resolve().parent.parent
IMPLEMENTED = "plain,lean,fused,plain compiled,lean compiled,fused compiled"

XL = dict(preset="XL/16", depth=4, field_depth=2)
SMALL = dict(preset="S/16", depth=4, ways="published,lean,linear,off", tasks="gradients", rounds=3)
CPU = {"XL/16 widths, 4 + 2 blocks": BenchConfig(**XL, batches="2", ways="published,plain,lean,linear,off", tasks="forward,train", rounds=5),
       "XL/16 widths, MKL": BenchConfig(**XL, batches="2", ways="published,lean", tasks="forward,train", rounds=3),
       "XL/16 widths, sampling": BenchConfig(**XL, batches="2", ways="published,lean", tasks="sample", rounds=3),
       "digits": BenchConfig(preset="digits", batches="64", tasks="forward,train,sample", rounds=11),
       "resolution": BenchConfig(**SMALL, field_depth=2, sizes="128,256,512", batches="1"),
       "batch": BenchConfig(**SMALL, field_depth=2, batches="1,2,4"),
       **{f"field depth {n}": BenchConfig(**SMALL, field_depth=n, batches="2") for n in (1, 2, 4)},
       **{f"preset {name}": BenchConfig(preset=name, batches="1", ways="published,lean,linear", tasks="forward", rounds=3) for name in ("S/16", "B/16", "L/16", "XL/16")}}
LARGE = dict(preset="XL/16", precision="bf16", device="cuda")
GPU = {"XL/16, 256 px": BenchConfig(**LARGE, batches="32,64", ways=IMPLEMENTED, tasks="forward,gradients,train,decoder,decoder gradients", rounds=9),
       "XL/16, 512 px": BenchConfig(**LARGE, sizes="512", batches="32,64", ways=IMPLEMENTED, tasks="forward,gradients,train,decoder,decoder gradients", rounds=5),
       "XL/16, other decoders": BenchConfig(**LARGE, batches="32", ways="linear,off,linear compiled,off compiled,fused compiled", tasks="forward,gradients", rounds=9),
       "XL/16, published arithmetic": BenchConfig(**LARGE, batches="32", ways="published,published compiled,fused,fused compiled", tasks="forward,gradients", rounds=5),
       "XL/16, sampling": BenchConfig(**LARGE, batches="1,8", ways="published,plain compiled,fused,fused compiled,fused graphed", tasks="sample", rounds=3, steps=50)}


def series(config: BenchConfig, rehearse: bool) -> list[dict]:
    "The rows of one series."
    if rehearse:                                               # one pass on the CPU: what a compiler and a kernel do is tested elsewhere
        ways = dict.fromkeys(w.partition(" ")[0].replace("fused", "lean") for w in config.ways.split(","))
        config = replace(config, preset="digits", depth=1, field_depth=1, sizes="0", batches="2", rounds=1, steps=2, precision="fp32", device="cpu", ways=",".join(ways))
    with tempfile.TemporaryDirectory() as folder: return list(bench(replace(config, out=f"{folder}/rows.json")))


def memory(rehearse: bool) -> list[dict]:
    "Memory of training in bfloat16, counted without having it."
    kinds = [("digits", 2)] if rehearse else [("L/16", 32), ("XL/16", 32)]
    return [{"preset": preset, "batch": batch, "way": way, **training_memory(PRESETS[preset].config, way, batch)}
            for preset, batch in kinds for way in ("published", "plain", "lean", "linear", "off")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--rehearse", action="store_true", help="tiny models on the CPU")
    parser.add_argument("--only", default="", help="a part of the names of the series to run; the others are kept from the file; limits: what is no series")
    parser.add_argument("--rounds", type=int, default=0, help="turns each way takes; 0: as planned")
    parser.add_argument("--out", type=Path)
    a = parser.parse_args()
    if a.device == "cuda" and not a.rehearse and not torch.cuda.is_available(): parser.exit(2, "error: no CUDA device is available: use --device cpu, or --rehearse\n")
    out = a.out or ROOT/f"nbs/results/benchmarks-{'gpu' if a.device == 'cuda' else 'cpu'}.json"
    device = torch.device("cpu" if a.rehearse else a.device)
    if device.type == "cuda": subprocess.run([sys.executable, "-m", "pytest", "-q", str(ROOT/"tests/test_fused_field.py")], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    cases = {name: replace(c, rounds=a.rounds or c.rounds) for name, c in (GPU if a.device == "cuda" else CPU).items() if a.only in name}
    record = json.loads(out.read_text()) if a.only and out.exists() else {"settings": {}, "series": {}}
    record["made_by"] = provenance(device)
    out.parent.mkdir(parents=True, exist_ok=True)
    write = lambda: write_whole(out, lambda path: path.write_text(json.dumps(record, indent=1) + "\n"))
    for name, config in cases.items():
        os.environ["PIXNERD_ONEDNN"] = "0" if name.endswith("MKL") else "1"
        onednn_pays.cache_clear()
        record["series"][name], record["settings"][name] = series(config, a.rehearse), asdict(config)
        print(f"\n{name}\n{as_table(record['series'][name])}", flush=True)
        write()
    if a.only in ("", "limits"):
        dtype, small = torch.bfloat16 if device.type == "cuda" else torch.float32, PRESETS["digits" if a.rehearse else "XL/16"].config
        limits = roofline(device, dtype)
        record |= {"roofline": limits, "memory": memory(a.rehearse), "account": account(small)}
        if device.type == "cpu": record["distances"] = distances(small, limits)
    write()
    print(out)


if __name__ == "__main__": main()
