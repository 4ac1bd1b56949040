"Data sets as the hub holds them, whole and streamed, from local files."

import io
from itertools import islice

import pytest
import torch
from PIL import Image

from files import fill, python
from pixnerd.data import batches, load_data
from pixnerd.digits import Example
from pixnerd.hub import Hub, Stream


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    "Folders as the hub would hold them; what `datasets` prepares goes to a temporary folder."
    datasets = pytest.importorskip("datasets", reason="Hugging Face's datasets is not installed (pip install datasets)")
    folder, cache = tmp_path_factory.mktemp("hub"), datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = tmp_path_factory.mktemp("cache")
    datasets.disable_progress_bars()
    def png(i):
        out = io.BytesIO()
        Image.new("RGB", (5 + i % 4, 6), (i, 255 - i, i // 2)).save(out, "PNG")
        return out.getvalue() if i % 23 != 5 else out.getvalue()[:40]                      # some are damaged
    def save(path, rows, features, first=0):
        path.parent.mkdir(parents=True, exist_ok=True)
        datasets.Dataset.from_list(rows, features=datasets.Features(features)).to_parquet(path)
    text, classes = datasets.Value("string"), datasets.ClassLabel(names=["low", "high"])
    image = {"bytes": datasets.Value("binary"), "path": text}
    rows = [{"image": {"bytes": png(i), "path": None}, "label": int(i > 60), "caption": f"number {i}"}
            for i in range(120)]
    def part(some, *columns): return [{c: row[c] for c in columns} for row in some]
    for k, (start, end) in enumerate([(0, 37), (37, 78), (78, 120)]):
        save(folder/f"classes/train-{k}.parquet", part(rows[start:end], "image", "label"),
             {"image": datasets.Image(), "label": classes})
    save(folder/"split/train.parquet", part(rows[:90], "image", "caption"), {"image": image, "caption": text})
    save(folder/"split/validation.parquet", part(rows[90:], "image", "caption"), {"image": image, "caption": text})
    two = [{"image": r["image"], "fine": r["label"], "coarse": 1 - r["label"]} for r in rows[:30]]
    save(folder/"two/train.parquet", two, {"image": datasets.Image(), "fine": classes, "coarse": classes})
    save(folder/"none/train.parquet", [{"score": 1.5, "when": "now"}],
         {"score": datasets.Value("float32"), "when": text})
    yield folder
    datasets.enable_progress_bars()
    datasets.config.HF_DATASETS_CACHE = cache


def same(a: Example, b: Example) -> bool: return torch.equal(a.image, b.image) and a.label == b.label


@pytest.mark.parametrize("name, split, count, names",
                         [("classes", "train", 114, ["low", "high"]), ("classes", "held-out", 6, ["low", "high"]),
                                                       ("split", "train", 90, None), ("split", "held-out", 30, None)])
def test_hub_and_stream_hold_the_same(hub, name, split, count, names):
    whole, stream = load_data(f"hub:{hub/name}", split, 16), load_data(f"stream:{hub/name}", split, 16)
    assert isinstance(whole, Hub) and isinstance(stream, Stream) and len(whole) == count
    assert whole.names == stream.names == names and (whole.size, stream.size) == (16, 16)
    streamed = list(stream)
    assert len(streamed) == count and all(same(whole[i], streamed[i]) for i in range(count))
    damaged = {i for i in range(count) if whole[i].skipped}
    assert damaged == {i for i in range(count) if streamed[i].skipped} and (damaged or split == "held-out")


def test_a_folder_of_images_through_the_hub_is_the_folder(hub, tmp_path):
    fill(tmp_path,
         [f"train/{c}/{i}.png" for c in "ab" for i in range(4)] + [f"test/{c}/{i}.png" for c in "ab" for i in range(2)])
    for split in ("train", "held-out"):
        found = [load_data(kind + str(tmp_path), split, 4) for kind in ("", "hub:", "stream:")]
        assert all(data.names == ["a", "b"] for data in found)
        lists = [[data[i] for i in range(len(data))] for data in found[:2]] + [list(found[2])]
        sets = [sorted((e.label, e.image.flatten().tolist()) for e in examples) for examples in lists]
        assert sets[0] == sets[1] == sets[2]


def flat(found): return [(e.images, list(e.labels), e.skipped) for e in found]


def equal(a, b) -> bool:
    return len(a) == len(b) and all(torch.equal(x[0], y[0]) and x[1:] == y[1:] for x, y in zip(a, b))


@pytest.mark.parametrize("block", [1000, 16])
def test_a_stream_keeps_the_promises_of_batches(hub, block):
    def fresh():
        stream = Stream(f"stream:{hub/'split'}", "train", 8)
        stream.block = block
        return stream
    whole = flat(islice(batches(fresh(), 12, seed=3), 24))  # more than three epochs of 90
    assert equal(flat(islice(batches(fresh(), 12, seed=3, workers=3), 24)), whole)
    known = fresh()
    for start in (0, 1, 5, 7, 8, 15, 23):
        assert equal(flat(islice(batches(known, 12, seed=3, start=start), 24 - start)), whole[start:]), start
        assert equal(flat(islice(batches(fresh(), 12, seed=3, start=start), 24 - start)), whole[start:]), start
    parts = [flat(islice(batches(fresh(), 12, 3, 2, p, 2, 3, workers=p), 9)) for p in range(2)]
    for s in range(3):
        together = [b for p in parts for b in p[3 * s:3 * s + 3]]
        assert torch.equal(torch.cat([b[0] for b in together]), whole[2 + s][0])
        assert sum((b[1] for b in together), []) == whole[2 + s][1]
    labels = [label for b in whole for label in b[1]]
    expected = sorted(e.label for e in fresh())
    if block == 1000:
        assert all(sorted(labels[90 * e:90 * e + 90]) != labels[90 * e:90 * e + 90]
                   and set(labels[90 * e:90 * e + 90]) <= set(expected) for e in range(3))
    assert labels[:90] != labels[90:180] and not equal(flat(islice(batches(fresh(), 12, seed=4), 3)), whole[:3])
    assert {p for b in whole for p, _ in b[2]} == {f"file 0, row {i}" for i in range(90) if i % 23 == 5}


def test_a_stream_decodes_only_what_is_asked_for(hub):
    class Watched(Stream):
        def read(self, item): read.append(item[0]); return super().read(item)
    read = []
    found = next(batches(Watched(f"stream:{hub/'split'}", "train", 8), 6, seed=0, start=9, process=1, processes=3))
    assert len(found.labels) == 2 and len(read) == 2 + len(found.skipped)


def test_threads_of_a_stream_end_with_it(hub):
    import threading
    before = set(threading.enumerate())
    found = batches(Stream(f"stream:{hub/'split'}", "train", 8), 6, seed=0, workers=2)
    next(found)
    found.close()
    ended = {t for t in threading.enumerate() if "ThreadPoolExecutor" in t.name} - before
    assert not ended, ended


def test_the_hub_says_what_is_wrong(hub, tmp_path):
    for kind in ("hub", "stream"):
        columns = r"image \(picture\), fine \(class\), coarse \(class\)"
        with pytest.raises(ValueError, match=f"cannot tell which column holds classes or captions; .* {columns}"):
            load_data(f"{kind}:{hub/'two'}")
        assert load_data(f"{kind}:{hub/'two'}#coarse").names == ["low", "high"]
        with pytest.raises(ValueError, match=r"no column, .* may hold the pictures: score \(float32\), when \(text\)"):
            load_data(f"{kind}:{hub/'none'}")
        with pytest.raises(ValueError, match="cannot be loaded: "): load_data(f"{kind}:{tmp_path}")
    said = python("""
from pixnerd.data import load_data
try: load_data("hub:nobody/nothing")
except ValueError as error: print(error)
""", HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path))
    assert said.startswith("data 'hub:nobody/nothing' cannot be loaded: ") and said.count("\n") == 1


def test_without_the_optional_packages_one_line_says_what_to_install():
    said = python("""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('datasets', 'torchvision'): raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Absent())
from pixnerd.data import load_data
for name in ("hub:a/b", "stream:a/b", "cifar10"):
    try: load_data(name)
    except ValueError as error: print(error)
""").splitlines()
    assert len(said) == 3 and "pip install torchvision" in said[2]
    assert all("pip install datasets" in line for line in said[:2])
