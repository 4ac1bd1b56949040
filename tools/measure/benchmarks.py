"""Measure what notebook 16 shows, in one call: nbs/results/benchmarks-cpu.json, or benchmarks-gpu.json on a GPU.

    python tools/measure benchmarks                      a quiet machine, about ten minutes on two CPU cores
    python tools/measure benchmarks --device cuda        one GPU with 80 GB: XL/16 in bfloat16; the kernel's tests first
    python tools/measure benchmarks --rehearse --out X   the same series on tiny models, in CPU mode: a minute
"""

import os
import subprocess
import sys
import tempfile
from argparse import ArgumentParser
from dataclasses import asdict, replace
from pathlib import Path

import torch

from pixnerd.benchmarks import VARIANTS, BenchConfig, bench, bench_table, training_memory
from pixnerd.costs import cost_by_part, roofline, roofline_shares
from pixnerd.model import PRESETS
from pixnerd.products import onednn_is_faster
from pixnerd.records import provenance, read_record, write_record

ROOT = Path(__file__).resolve().parents[2]
KERNEL_TESTS = [str(ROOT/f"tests/test_{name}.py") for name in ("lean_field", "triton_field", "implementations")]

XL = dict(preset="XL/16", depth=4, field_depth=2, batches="2")
SMALL = dict(preset="S/16", depth=4, variants="published,lean,linear,off", tasks="gradients", rounds=3)
WHOLE = dict(batches="1", variants="published,lean,linear", tasks="forward", rounds=3)
CPU = {
    "XL/16 widths, 4 + 2 blocks": BenchConfig(**XL, tasks="forward,train"),
    "XL/16 widths, MKL": BenchConfig(**XL, variants="published,lean", tasks="forward,train", rounds=3),
    "XL/16 widths, sampling": BenchConfig(**XL, variants="published,lean", tasks="sample", rounds=3),
    "digits": BenchConfig(preset="digits", batches="64", tasks="forward,train,sample", rounds=11),
    "resolution": BenchConfig(**SMALL, field_depth=2, sizes="128,256,512", batches="1"),
    "batch": BenchConfig(**SMALL, field_depth=2, batches="1,2,4"),
    **{f"field depth {n}": BenchConfig(**SMALL, field_depth=n, batches="2") for n in (1, 2, 4)},
    **{f"preset {name}": BenchConfig(preset=name, **WHOLE) for name in ("S/16", "B/16", "L/16", "XL/16")}}

LARGE = dict(preset="XL/16", precision="bf16", device="cuda")
OURS = dict(variants="plain,lean,fused,plain compiled,lean compiled,fused compiled",
            tasks="forward,gradients,train,decoder,decoder gradients")
PASSES = dict(batches="32", tasks="forward,gradients")
GPU = {
    "XL/16, 256 px": BenchConfig(**LARGE, **OURS, batches="32,64", rounds=9),
    "XL/16, 512 px": BenchConfig(**LARGE, **OURS, batches="32,64", sizes="512", rounds=5),
    "XL/16, other decoders": BenchConfig(**LARGE, **PASSES, rounds=9,
                                         variants="linear,off,linear compiled,off compiled,fused compiled"),
    "XL/16, published arithmetic": BenchConfig(**LARGE, **PASSES, rounds=5,
                                               variants="published,published compiled,fused,fused compiled"),
    "XL/16, sampling": BenchConfig(**LARGE, batches="1,8", tasks="sample", rounds=3, steps=50,
                                   variants="published,plain compiled,fused,fused compiled,fused graphed")}


def rehearsed(config: BenchConfig) -> BenchConfig:
    "The same series on the CPU, tiny, in one turn; what a compiler and a kernel do is tested elsewhere."
    variants = dict.fromkeys(name.partition(" ")[0].replace("fused", "lean") for name in config.entries("variants"))
    return replace(config, preset="digits", depth=1, field_depth=1, sizes="0", batches="2", rounds=1, steps=2,
                   precision="fp32", device="cpu", variants=",".join(variants))


def measure_series(name: str, config: BenchConfig) -> list[dict]:
    "The rows of one series, by the library that its name asks for."
    os.environ["PIXNERD_ONEDNN"] = "0" if name.endswith("MKL") else ""            # "": whichever is faster here
    onednn_is_faster.cache_clear()
    with tempfile.TemporaryDirectory() as folder: rows = list(bench(replace(config, out=f"{folder}/rows.json")))
    print(f"\n{name}\n{bench_table(rows)}", flush=True)
    return rows


def measure_limits(device: torch.device, rehearse: bool) -> dict:
    "What is no series: rates of the machine, training memory counted without having it, costs of the parts."
    config = PRESETS["digits" if rehearse else "XL/16"].config
    limits = roofline(device, torch.bfloat16 if device.type == "cuda" else torch.float32)
    models = [("digits", 2)] if rehearse else [("L/16", 32), ("XL/16", 32)]
    memory = [{"preset": preset, "batch": batch, "variant": name} | training_memory(PRESETS[preset].config, name, batch)
              for preset, batch in models for name in VARIANTS if name != "fused"]
    found = {"roofline": limits, "memory": memory, "cost_by_part": cost_by_part(config)}
    return found | ({"roofline_shares": roofline_shares(config, limits)} if device.type == "cpu" else {})


def main(parser: ArgumentParser, arguments: list[str]) -> None:
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--rehearse", action="store_true", help="tiny models on the CPU")
    parser.add_argument("--only", default="", help="a part of the names of the series to run, or limits: what is no "
                        "series; the others are kept from the file")
    parser.add_argument("--rounds", type=int, default=0, help="turns each variant takes; 0: as planned")
    parser.add_argument("--out", type=Path)
    a = parser.parse_args(arguments)
    device = torch.device("cpu" if a.rehearse else a.device)
    if device.type == "cuda":
        if not torch.cuda.is_available(): parser.exit(2, "error: no CUDA device: use --device cpu, or --rehearse\n")
        subprocess.run([sys.executable, "-m", "pytest", "-q", *KERNEL_TESTS], check=True,
                       env={**os.environ, "PYTHONPATH": str(ROOT)})
    series, kind = (GPU, "gpu") if a.device == "cuda" else (CPU, "cpu")
    out = a.out or ROOT/f"nbs/results/benchmarks-{kind}.json"
    record = read_record(out) if a.only and out.exists() else {"settings": {}, "series": {}}
    record["made_by"] = provenance(device)
    out.parent.mkdir(parents=True, exist_ok=True)
    for name, config in series.items():
        if a.only not in name: continue
        config = replace(config, rounds=a.rounds or config.rounds)
        record["settings"][name] = asdict(config)
        record["series"][name] = measure_series(name, rehearsed(config) if a.rehearse else config)
        write_record(out, record)
    if a.only in ("", "limits"): write_record(out, record | measure_limits(device, a.rehearse))
    print(out)
