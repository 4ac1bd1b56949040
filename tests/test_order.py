"Batches: the same whatever divides them, from any step on, and with workers that end when they should."

import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import Dataset

from files import LINUX, ROOT
from pixnerd.data import batches
from pixnerd.digits import Example


class Numbers(Dataset):
    "ImageFiles that say which they are; captions or class ids."
    channels, size = 1, 1

    def __init__(self, count, texts=False): self.count, self.names = count, None if texts else ["all"]
    def __len__(self): return self.count
    def __getitem__(self, i):
        skipped = (("file", str(i)),) if i % 7 == 3 else ()
        return Example(torch.full((1, 1, 1), float(i)), str(i) if self.names is None else i, skipped)


def numbers(batch): return [int(label) for label in batch.labels]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(1, 4), st.integers(1, 3), st.integers(1, 4), st.integers(0, 50),
       st.integers(0, 2 ** 40), st.booleans())
def test_a_step_learns_from_the_same_whatever_divides_it(count, processes, accumulate, each, start, seed, texts):
    data, batch, steps = Numbers(count, texts), processes * accumulate * each, 4
    whole = list(islice(batches(data, batch, seed), start + steps))[start:]
    divided = [list(islice(batches(data, batch, seed, start, p, processes, accumulate), steps * accumulate))
               for p in range(processes)]
    for s in range(steps):
        parts = [b for process in divided for b in process[s * accumulate:(s + 1) * accumulate]]
        assert all(len(b.images) == each for b in parts)
        assert numbers(whole[s]) == [i for b in parts for i in numbers(b)] == whole[s].images.flatten().int().tolist()
        assert whole[s].skipped == tuple(x for b in parts for x in b.skipped)
    assert isinstance(whole[0].labels, list if texts else torch.Tensor)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 50), st.integers(1, 20), st.integers(0, 1000))
def test_every_epoch_holds_everything_once(count, batch, seed):
    seen = [i for b in islice(batches(Numbers(count), batch, seed), 3 * count // batch + 1) for i in numbers(b)]
    for epoch in range(len(seen) // count): assert sorted(seen[epoch * count:(epoch + 1) * count]) == list(range(count))


def test_a_far_step_needs_nothing_before_it():
    class Watched(Numbers):
        def __getitem__(self, i): asked.append(i); return super().__getitem__(i)
    asked = []
    far = next(batches(Watched(1000), 8, seed=3, start=10 ** 9))
    assert asked == numbers(far) and len(asked) == 8


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing_and_end_with_the_batches(workers):
    import multiprocessing
    before, state = set(multiprocessing.active_children()), torch.get_rng_state()
    how = dict(batch=12, seed=4, start=7, process=1, processes=2, accumulate=3)
    found = batches(Numbers(50), workers=workers, **how)
    got = list(islice(found, 20))
    mine = set(multiprocessing.active_children()) - before
    assert len(mine) == workers
    for a, b in zip(got, islice(batches(Numbers(50), **how), 20)):
        assert torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) and a.skipped == b.skipped
    found.close()
    assert not any(w.is_alive() for w in mine)
    assert torch.equal(torch.get_rng_state(), state), "nobody else's random numbers may move"


@LINUX
@pytest.mark.parametrize("end", ["os.kill(os.getpid(), 9)", "1 / 0"], ids=["killed", "error"])
def test_no_worker_outlives_its_run(end, tmp_path):
    code = f"""
import os, sys
sys.path.insert(0, "tests")
from test_order import Numbers, batches
found = batches(Numbers(500), 4, 0, workers=2)
next(found)                                             # the second worker may not even be up
print(open(f"/proc/self/task/{{os.getpid()}}/children").read(), flush=True)
{end}
"""
    out = tmp_path/"out"                                    # a file and not a pipe, which the workers would hold open
    with out.open("w") as file:
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, timeout=100)
    workers = [int(word) for word in out.read_text().splitlines()[0].split()]
    assert len(workers) == 2, out.read_text()
    def alive(pid):
        try: return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
        except OSError: return False
    deadline = time.monotonic() + 60                        # they look twice a second whether their parent lives
    while any(map(alive, workers)) and time.monotonic() < deadline: time.sleep(.05)
    assert not any(map(alive, workers))


@pytest.mark.parametrize("wrong, message", [
    (dict(batch=0), "batch must be at least 1, got 0"),
    (dict(batch=10, processes=4), "batch must be a multiple of processes × accumulate = 4 × 1 = 4, got 10"),
    (dict(process=2, processes=2), "process must be from 0 to 1, got 2"),
    (dict(start=-1), "start must be at least 0, got -1"),
    (dict(accumulate=0), "accumulate must be at least 1, got 0"),
    (dict(workers=-1), "workers must be at least 0, got -1")])
def test_numbers_that_do_not_fit_are_refused_at_once(wrong, message):
    with pytest.raises(ValueError, match=message): batches(Numbers(9), **(dict(batch=8, seed=0) | wrong))
    with pytest.raises(ValueError, match="count must be at least 1, got 0"): next(batches(Numbers(0), 8, 0))
