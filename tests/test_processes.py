"Several processes train as one: DDP and sharded weights under gloo give the single process's gradients, and each other's checkpoints."

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pixnerd import from_pretrained
from pixnerd.run_settings import TrainConfig
from pixnerd.run_folder import latest_checkpoint, read_log
from pixnerd.training import train

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = dict(batch=8, accumulate=2, clip=0., warmup=0, log_every=1, align="digits", align_block=2, device="cpu")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

# In two processes: a first step by DDP and one with sharded weights, and a second step, sharded, of the run that one process began.
# accelerate's FSDP plug-in turns into DDP on a CPU without a word, so here weights are sharded in its place.
TWO = """
import os, sys, warnings
from pathlib import Path
from types import SimpleNamespace
import torch
from accelerate import Accelerator
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from pixnerd.run_settings import TrainConfig
from pixnerd.training import train

def shard(self, model, optimiser):
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")     # nobody writes into an output
    mesh = init_device_mesh("cpu", (self.num_processes,))
    for part in (*model.model.blocks, model): fully_shard(part, mesh=mesh)
    kept = {name: optimiser.defaults[name] for name in ("lr", "betas", "weight_decay", "fused")}
    return model, SimpleNamespace(optimizer=torch.optim.AdamW(model.parameters(), **kept))

folder, settings, whole = Path(sys.argv[1]), eval(sys.argv[2]), Accelerator.prepare
for kind, out, steps in (("ddp", "ddp", 1), ("sharded", "sharded", 1), ("sharded", "one-sharded", 2)):
    Accelerator.prepare = shard if kind == "sharded" else whole
    run = train(TrainConfig(out=str(folder/out), steps=steps, resume_changed=True, **settings))
    weight = run.gi_frame.f_locals["state"].raw.patch_embedding.weight
    (folder/f"{out}-{os.environ['RANK']}").write_text(str(tuple(getattr(weight, "to_local", lambda: weight)().shape)))
    list(run)
"""


def moments(out: Path) -> list[torch.Tensor]:
    "After one step, the first moment is (1 - 0.9) times the gradient."
    state = torch.load(latest_checkpoint(out)/"training.pt", weights_only=True)["optimiser"]["state"]
    return [state[i]["exp_avg"] for i in sorted(state)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    "Runs by one process and by two, in folders named for what took their steps."
    folder = tmp_path_factory.mktemp("processes")
    def alone(out, steps): list(train(TrainConfig(out=str(folder/out), steps=steps, resume_changed=True, **SETTINGS)))
    alone("one", 1)
    for other in ("one-one", "one-sharded"): shutil.copytree(folder/"one", folder/other)
    alone("one-one", 2)
    (folder/"two.py").write_text(TWO)
    done = subprocess.run([*TORCHRUN, folder/"two.py", folder, repr(SETTINGS)], capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    for first in ("ddp", "sharded"):
        shutil.copytree(folder/first, folder/f"{first}-one")
        alone(f"{first}-one", 2)
    return folder


@pytest.mark.parametrize("kind", ["ddp", "sharded"])
def test_processes_give_the_gradient_of_one(runs, kind):
    one, several = moments(runs/"one"), moments(runs/kind)
    assert len(one) == len(several) > 50 and max(g.abs().max() for g in one) > 1e-3
    for a, b in zip(several, one): torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", ["ddp", "sharded"])
def test_processes_log_the_same_loss(runs, kind):
    (one,), (several,) = (read_log(runs/k) for k in ("one", kind))
    for name in ("loss", "alignment", "grad_norm"): assert several[name] == pytest.approx(one[name], rel=1e-5)


def test_weights_are_sharded_in_memory_and_whole_in_the_checkpoint(runs):
    assert [(runs/f"ddp-{rank}").read_text() for rank in (0, 1)] == ["(128, 64)"] * 2
    assert [(runs/f"sharded-{rank}").read_text() for rank in (0, 1)] == ["(64, 64)"] * 2
    assert from_pretrained(latest_checkpoint(runs/"sharded")).patch_embedding.weight.shape == (128, 64)


@pytest.mark.parametrize("kind", ["sharded-one", "one-sharded", "ddp-one"])
def test_a_run_continues_on_another_number_of_processes(runs, kind):
    "The second step, after a first one made otherwise, is the second step of one process."
    assert [line["step"] for line in read_log(runs/kind)] == [1, 2]
    for a, b in zip(moments(runs/kind), moments(runs/"one-one"), strict=True): torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-3)


def test_a_batch_that_processes_cannot_share_is_refused_once(tmp_path):
    "By the command, as two processes run it: one line, and nothing is left."
    script = tmp_path/"train.py"
    script.write_text("from pixnerd.cli import train_command\nif __name__ == '__main__': train_command()\n")
    done = subprocess.run([*TORCHRUN, script, f"--out={tmp_path/'run'}", "--batch=10", "--accumulate=3"], capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode != 0 and done.stderr.count("error: batch") == 1 and "got 10" in done.stderr
    assert not (tmp_path/"run"/"checkpoints").exists() and not (tmp_path/"run"/"config.json").exists()
