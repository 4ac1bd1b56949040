"Data as it comes: broken files, other people's folders, any division of a batch, and a drawn world whose truth is known."

import hashlib
import io
import itertools
import json
import os
import pickle
import random
import subprocess
import sys
import time
import warnings
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import Dataset

from pixnerd.scenes import (
    COLOURS, GROUNDS, PAIRS, PLACES, REACH, RELATIONS, SHAPES, SKILLS, VOCABULARY, Scenes, caption, distance,
    draw_scene, parse_caption, scenes)
from pixnerd.digits import Example
from pixnerd.images import Folder, PackedStrings, crop_square, open_picture, reason
from pixnerd.hub import Hub, Stream
from pixnerd.data import batches, check_data, load_data
from pixnerd.run_settings import TrainConfig
from pixnerd.run_folder import read_log
from pixnerd.training import train

ROOT = Path(__file__).resolve().parent.parent
LINUX = pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="memory and processes are measured through Linux's /proc")


def python(code: str, **env) -> str:
    "Run code in a fresh interpreter, from the project's folder; return what it printed."
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=os.environ | env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


# --- pictures and folders ---

@pytest.fixture(scope="module")
def picture() -> Image.Image:
    "Something with edges, colours and no symmetry."
    y, x = np.mgrid[:60, :90]
    return Image.fromarray(np.stack([x * 255 // 90, y * 255 // 60, (x > 2 * y) * 200], 2).astype(np.uint8))


@pytest.fixture(scope="module")
def nasty(tmp_path_factory, picture) -> Path:
    "A class folder with everything that real folders hold."
    folder = tmp_path_factory.mktemp("nasty")/"things"
    folder.mkdir()
    def put(name, image=picture, **how): image.save(folder/name, **how)
    def png_header(width, height):                          # of a picture that claims to be huge
        chunk = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\x00\x00\x00"
        import zlib
        return b"\x89PNG\r\n\x1a\n\x00\x00\x00\r" + chunk + zlib.crc32(chunk).to_bytes(4, "big") + b"\x00\x00\x00\x0aIDAT" + bytes(14)
    put("01 plain.png"), put("02 UPPER.JPG", quality=98), put("03 grey.png", picture.convert("L")), put("04 cmyk.jpg", picture.convert("CMYK"), quality=98)
    put("05 sixteen.png", Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257))
    put("06 palette.png", picture.quantize(64)), put("07 bits.png", picture.convert("1"))
    clear = picture.convert("RGBA")
    clear.putalpha(Image.fromarray(np.uint8(255 * (np.mgrid[:60, :90][1] < 45))))
    put("08 clear.png", clear)
    see_through = picture.quantize(64)
    put("09 clear palette.png", see_through, transparency=see_through.getpixel((80, 5)))
    put("10 moving.gif", picture.quantize(64), save_all=True, append_images=[picture.rotate(90).quantize(64)])
    exif = Image.Exif()
    exif[0x0112] = 6                                        # to be turned clockwise
    put("11 turned.jpg", picture.transpose(Image.Transpose.ROTATE_90), exif=exif, quality=98)
    put("12 one pixel.png", Image.new("RGB", (1, 1), (10, 20, 30))), put("13 twenty million.png", Image.new("RGB", (5000, 4000), (40, 50, 60)))
    whole = (folder/"02 UPPER.JPG").read_bytes()
    (folder/"20 cut off.jpg").write_bytes(whole[:len(whole) * 2 // 3])
    (folder/"21 text.png").write_text("not a picture")
    (folder/"22 empty.webp").touch()
    (folder/"23 huge.png").write_bytes(png_header(60_000, 60_000))
    (folder/"24 large.png").write_bytes(png_header(10_000, 10_000))
    put("25 float.tiff", Image.fromarray(np.float32(np.ones((9, 9)))))
    put("26 held out.png"), put("29 thread.png", Image.new("L", (1, 40_000)))             # the first is the twentieth file
    (folder/"27 script.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    (folder/"28 nowhere.png").symlink_to("missing.png")
    (folder/"30 ünïcode 图.webp").write_bytes((folder/"01 plain.png").read_bytes())        # a PNG: formats go by content
    (folder/"31 link.png").symlink_to("01 plain.png")
    (folder/".hidden.png").touch(), (folder/"notes.md").touch(), (folder/"table.csv").touch()
    (folder/"again").symlink_to(folder)                     # a circle
    os.mkfifo(folder/"32 pipe.png")                         # opening it would wait for ever
    return folder.parent


LISTING = {"20 cut off.jpg": "truncated", "21 text.png": "not a picture", "22 empty.webp": "not a picture", "23 huge.png": "too large", "24 large.png": "too large: 10000 × 10000",
           "25 float.tiff": "32-bit pixels", "29 thread.png": "too thin: 1 × 40000", "27 script.jpg": "not a picture", "28 nowhere.png": "no such file"}


def test_a_nasty_folder_is_read_and_what_cannot_be_read_is_listed(nasty, recwarn):
    data = Folder(nasty, size=64)
    examples = [data[i] for i in range(len(data))]
    skipped = dict(pair for e in examples for pair in e.skipped)
    assert {path.removeprefix("things/") for path in skipped} == set(LISTING)
    for path, why in LISTING.items(): assert why in skipped[f"things/{path}"], (path, skipped[f"things/{path}"])
    assert len(data) == 24 and data.names == ["things"] and (data.channels, data.size) == (3, 64)
    assert all(e.image.shape == (3, 64, 64) and e.image.dtype == torch.uint8 and e.label == 0 for e in examples)
    assert not recwarn.list, [str(w.message) for w in recwarn.list]


def test_a_nasty_folder_trains_and_the_run_lists_what_could_not_be_read(nasty, tmp_path):
    "Every example is seen; killed and continued, the list is still whole and each picture is in it once."
    settings = dict(data=str(nasty), size=64, steps=8, batch=6, log_every=2, save_every=4, workers=2, device="cpu")
    for step in train(TrainConfig(out=str(tmp_path/"run"), **settings)):
        if step.step == 5: break
    assert all(s.loss.isfinite().all() for s in train(TrainConfig(out=str(tmp_path/"run"), **settings)))
    listed = json.loads((tmp_path/"run"/"unreadable.json").read_text())
    assert {path.removeprefix("things/") for path in listed} == set(LISTING) and all(why in listed[f"things/{path}"] for path, why in LISTING.items())
    assert read_log(tmp_path/"run")[-1]["unreadable"] == len(LISTING)


def test_each_kind_of_picture_looks_as_it_should(nasty, picture):
    data = Folder(nasty, size=60)
    image = {data.where(i).removeprefix("things/")[:2]: data[i].image.int() for i in range(len(data))}
    def far(a, b): return (a - b).abs().float().mean().item()
    grey = torch.from_numpy(np.array(crop_square(picture.convert("L").convert("RGB"), 60))).permute(2, 0, 1).int()
    for name in ("02", "04", "06", "10", "11"): assert far(image["01"], image[name]) < 8, name
    assert far(image["03"], grey) < 1 and far(image["05"], grey) < 1 and set(image["07"].unique().tolist()) <= set(range(256))
    assert torch.equal(image["08"][:, :, 32:], torch.full((3, 60, 28), 255)) and torch.equal(image["08"][:, :, :26], image["01"][:, :, :26])
    assert (image["09"] == 255).all(0).any() and far(image["09"][:, :, :20], image["01"][:, :, :20]) < 8
    assert torch.equal(image["12"], torch.tensor([10, 20, 30]).int()[:, None, None].expand(3, 60, 60)) and torch.equal(image["13"][:, 0, 0], torch.tensor([40, 50, 60]).int())
    assert torch.equal(image["30"], image["01"]) and torch.equal(image["31"], image["01"])
    assert all(torch.equal(image[name], image["30"]) for name in ("20", "25", "28"))       # replaced by the next that can be read


def test_replacement_is_a_function_of_the_index_alone(nasty):
    data = Folder(nasty, size=16)
    order = list(range(13, len(data)))
    random.Random(0).shuffle(order)
    by_chance = {i: data[i] for i in order}
    assert all(torch.equal(by_chance[i].image, data[i].image) and by_chance[i].skipped == data[i].skipped for i in order)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"]), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6), st.floats(.2, 1.5))
def test_damage_anywhere_gives_a_picture_or_a_reason(kind, changes, end):
    "A file with some bytes changed, perhaps cut off: square and RGB, or refused in one line, and nothing is printed."
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(out, kind)
    data = bytearray(out.getvalue())
    for place, value in changes: data[int(place ** 2 * (len(data) - 1))] = value           # more of them near the beginning
    data = bytes(data[:int(end * len(data))])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try: image = crop_square(open_picture(data), 8)
        except Exception as error: assert 0 < len(why := reason(error)) <= 200 and "\n" not in why
        else: assert image.size == (8, 8) and image.mode == "RGB"


def center_crop_arr(pil_image, image_size):
    "guided-diffusion's, as published."
    while min(*pil_image.size) >= 2 * image_size:
        pil_image = pil_image.resize(tuple(x // 2 for x in pil_image.size), resample=Image.Resampling.BOX)
    scale = image_size / min(*pil_image.size)
    pil_image = pil_image.resize(tuple(round(x * scale) for x in pil_image.size), resample=Image.Resampling.BICUBIC)
    arr = np.array(pil_image)
    crop_y = (arr.shape[0] - image_size) // 2
    crop_x = (arr.shape[1] - image_size) // 2
    return arr[crop_y: crop_y + image_size, crop_x: crop_x + image_size]


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 70), st.integers(0, 99))
def test_crop_is_adms(width, height, size, seed):
    image = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))
    assert np.array_equal(np.array(crop_square(image, size)), center_crop_arr(image, size))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 20), st.integers(0, 3), st.integers(0, 30), st.integers(0, 99))
def test_crop_by_halves_is_the_mean_of_blocks(size, halvings, wider, seed):
    "Without Pillow: where only halving and cutting are left, each pixel is the mean of a block, up to rounding in each halving."
    block = 2 ** halvings
    pixels = np.random.default_rng(seed).integers(0, 256, (size * block, (size + wider) * block, 3), dtype=np.uint8)
    means = pixels.reshape(size, block, size + wider, block, 3).mean((1, 3))[:, wider // 2:wider // 2 + size]
    assert np.abs(np.array(crop_square(Image.fromarray(pixels), size)) - means).max() <= max(halvings, .01)


def fill(folder: Path, names, caption=None):
    "Small pictures of these names, each of a colour of its own."
    for name in names:
        path = folder/name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), tuple(hashlib.sha1(name.encode()).digest()[:3])).save(path)
        if caption: path.with_suffix(".txt").write_text(caption.format(path.stem))
    return folder


def test_class_folders_and_what_is_held_out(tmp_path):
    folder = fill(tmp_path, [f"{name}/{i:03d}.png" for name in ("zebra", "ant") for i in range(45)] + ["cat/deep/er/0.png"])
    (folder/"no images here").mkdir()
    train, held = Folder(folder, "train", 4), Folder(folder, "held-out", 4)
    assert train.names == held.names == ["ant", "cat", "zebra"]
    assert [held.where(i) for i in range(len(held))] == [f"{name}/{i:03d}.png" for name in ("ant", "zebra") for i in (19, 39)]
    assert len(train) + len(held) == 91 and not {*map(train.where, range(len(train)))} & {*map(held.where, range(len(held)))}
    assert [train[i].label for i in (0, 43, 44)] == [0, 1, 2] and [e.label for e in map(held.__getitem__, range(4))] == [0, 0, 2, 2]
    Image.new("RGB", (4, 4)).save(folder/"loose.png")
    with pytest.raises(ValueError, match=r"holds images beside its class folders \(1, for example loose.png\)"): Folder(folder)


@pytest.mark.parametrize("name", ["held-out", "val", "test"])
def test_split_folders(tmp_path, name):
    folder = fill(tmp_path, [f"train/{c}/{i}.png" for c in "abc" for i in range(3)] + [f"{name}/{c}/x.png" for c in "bc"])
    train, held = Folder(folder, "train", 4), Folder(folder, "held-out", 4)
    assert train.names == held.names == ["a", "b", "c"] and len(train) == 9
    assert [(held.where(i), held[i].label) for i in range(2)] == [("b/x.png", 1), ("c/x.png", 2)]
    fill(tmp_path, [f"{name}/d/x.png"])
    with pytest.raises(ValueError, match="has the class 'd', which"): Folder(folder, "held-out", 4)


def test_a_class_may_be_called_train(tmp_path):
    assert Folder(fill(tmp_path, ["train/0.png", "car/0.png", "test/0.png"]), size=4).names == ["car", "test", "train"]


def test_a_flat_folder_is_one_class(tmp_path):
    data = Folder(fill(tmp_path/"faces", ["1.png", "2.png"]), size=4)
    assert data.names == ["faces"] and len(data) == 2 and data[1].label == 0


def test_data_sets_can_be_sent_to_workers_that_are_not_forks(nasty):
    for data in (Folder(nasty, size=8), load_scenes("train", 8), load_data("digits")):
        sent = pickle.loads(pickle.dumps(data))
        assert len(sent) == len(data) and torch.equal(sent[3].image, data[3].image) and sent[3][1:] == data[3][1:]


def test_captions(tmp_path):
    folder = fill(tmp_path, [f"{k}/{i:02d}.png" for k in "xy" for i in range(15)], caption="  the picture\n{}  ")
    train, held = Folder(folder, size=4), Folder(folder, "held-out", 4)
    assert train.names is None and train[0].label == "the picture 00" and [held.where(i) for i in range(len(held))] == ["y/04.png"]
    (folder/"x/00.txt").write_text(" \n"), (folder/"x/01.txt").unlink(), (folder/"x/02.txt").write_bytes(b"\xff\xfe\x00")
    found = Folder(folder, size=4)[0]
    assert found.label == "the picture 03" and [why for _, why in found.skipped[:2]] == ["its caption is empty", "no caption beside it"] and len(found.skipped) == 3
    for i in range(4, 15): (folder/f"x/{i:02d}.txt").unlink()
    for i in range(0, 12): (folder/f"y/{i:02d}.txt").unlink()
    with pytest.raises(ValueError, match="has captions for 6 of its 30 images"): Folder(folder)


def test_folders_with_nothing_to_learn_from_say_what_they_hold(tmp_path):
    (tmp_path/"a").mkdir()
    with pytest.raises(ValueError, match=r"holds no images: 0 files \(it is empty\)"): Folder(tmp_path)
    for name in ("a/1.pdf", "a/2.pdf", "b.csv", "README"): (tmp_path/name).touch()
    with pytest.raises(ValueError, match=r"holds no images: 4 files \(2 × .pdf, 1 × no suffix, 1 × .csv\)"): Folder(tmp_path)
    (tmp_path/"a/3.png").touch()
    with pytest.raises(ValueError, match=r"holds no usable image \(1 found\): .*a/3.png: not a picture"): Folder(tmp_path)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])) | st.binary().map(os.fsdecode)))
def test_texts_are_kept_as_they_are(texts):
    packed = PackedStrings(texts)
    assert [packed[i] for i in range(len(packed))] == texts


@LINUX
def test_a_worker_shares_the_list_of_a_million_files():
    "Every page of Python strings is copied into a worker that looks at them; the packed list is not. Measured as memory private to a forked process."
    grown = python("""
import gc, os
from pixnerd.images import PackedStrings
def private(): return sum(int(line.split()[1]) for line in open("/proc/self/smaps_rollup") if line.startswith("Private"))
def grows(names):
    gc.collect(); gc.freeze()
    read, write = os.pipe()
    if not os.fork():
        before = private()
        for i in range(len(names)): names[i]
        os.write(write, str(private() - before).encode())
        os._exit(0)
    os.wait()
    return int(os.read(read, 99))
names = [f"some/folder/of/images/{i:09d}.jpg" for i in range(1_000_000)]
strings = grows(names)
packed = PackedStrings(names)
del names
print(strings, grows(packed))
""")
    strings, packed = map(int, grown.split())
    assert strings > 40_000 and packed < 8_000, f"KB copied into a worker by one look at a million names: {strings} as strings, {packed} packed"


@LINUX
def test_memory_is_flat_over_an_epoch(tmp_path):
    "Private memory of the process and its workers, at a quarter of an epoch of 6,000 files and at its end."
    png = io.BytesIO()
    Image.new("RGB", (8, 8), (1, 2, 3)).save(png, "PNG")
    for c in range(3):
        (tmp_path/f"{c}").mkdir()
        for i in range(2000): (tmp_path/f"{c}/{i:05d}.png").write_bytes(png.getvalue())
    grown = python(f"""
import os
from pathlib import Path
from pixnerd.images import Folder
from pixnerd.data import batches
def private(pid): return sum(int(line.split()[1]) for line in open(f"/proc/{{pid}}/smaps_rollup") if line.startswith("Private"))
def family(): return [os.getpid(), *map(int, Path(f"/proc/self/task/{{os.getpid()}}/children").read_text().split())]
found = batches(Folder({str(tmp_path)!r}, size=8), 50, seed=0, workers=2)
for step, batch in zip(range(120), found):
    if step == 30: before = {{pid: private(pid) for pid in family()}}
after = {{pid: private(pid) for pid in before}}
print(len(before), max(after[pid] - before[pid] for pid in before))
""", OMP_NUM_THREADS="1")
    processes, kilobytes = map(int, grown.split())
    assert processes == 3 and kilobytes < 6_000


# --- batches ---

class Numbers(Dataset):
    "ImageFiles that say which they are; captions or class ids."
    channels, size = 1, 1

    def __init__(self, count, texts=False): self.count, self.names = count, None if texts else ["all"]
    def __len__(self): return self.count
    def __getitem__(self, i): return Example(torch.full((1, 1, 1), float(i)), str(i) if self.names is None else i, (("file", str(i)),) if i % 7 == 3 else ())


def numbers(batch): return [int(label) for label in batch.labels]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(1, 4), st.integers(1, 3), st.integers(1, 4), st.integers(0, 50), st.integers(0, 2 ** 40), st.booleans())
def test_a_step_learns_from_the_same_whatever_divides_it(count, processes, accumulate, each, start, seed, texts):
    data, batch, steps = Numbers(count, texts), processes * accumulate * each, 4
    whole = list(islice(batches(data, batch, seed), start + steps))[start:]
    divided = [list(islice(batches(data, batch, seed, start, p, processes, accumulate), steps * accumulate)) for p in range(processes)]
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
    for a, b in zip(got, islice(batches(Numbers(50), **how), 20)): assert torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) and a.skipped == b.skipped
    found.close()
    assert not any(w.is_alive() for w in mine)
    assert torch.equal(torch.get_rng_state(), state), "nobody else's random numbers may move"


@LINUX
@pytest.mark.parametrize("end", ["os.kill(os.getpid(), 9)", "1 / 0"], ids=["killed", "error"])
def test_no_worker_outlives_its_run(end, tmp_path):
    code = f"""
import os, sys
sys.path.insert(0, "tests")
from test_data import Numbers, batches
found = batches(Numbers(500), 4, 0, workers=2)
next(found)                                             # the second worker may not even be up
print(open(f"/proc/self/task/{{os.getpid()}}/children").read(), flush=True)
{end}
"""
    out = tmp_path/"out"                                    # a file and not a pipe, which the workers would hold open
    with out.open("w") as file: subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, timeout=100)
    workers = [int(word) for word in out.read_text().splitlines()[0].split()]
    assert len(workers) == 2, out.read_text()
    def alive(pid):
        try: return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
        except OSError: return False
    deadline = time.monotonic() + 60                        # they look twice a second whether their parent lives
    while any(map(alive, workers)) and time.monotonic() < deadline: time.sleep(.05)
    assert not any(map(alive, workers))


def test_pictures_come_through_workers_whole(nasty):
    data = Folder(nasty, size=64)
    plain, read = (list(islice(batches(data, 8, 1, workers=w), 6)) for w in (0, 2))
    assert all(torch.equal(a.images, b.images) and a.skipped == b.skipped for a, b in zip(plain, read))
    assert {p.removeprefix("things/") for b in read for p, _ in b.skipped} == set(LISTING)


@pytest.mark.parametrize("wrong, message", [
    (dict(batch=0), "batch must be at least 1, got 0"), (dict(batch=10, processes=4), "batch must be a multiple of processes × accumulate = 4 × 1 = 4, got 10"),
    (dict(process=2, processes=2), "process must be from 0 to 1, got 2"), (dict(start=-1), "start must be at least 0, got -1"),
    (dict(accumulate=0), "accumulate must be at least 1, got 0"), (dict(workers=-1), "workers must be at least 0, got -1")])
def test_numbers_that_do_not_fit_are_refused_at_once(wrong, message):
    with pytest.raises(ValueError, match=message): batches(Numbers(9), **(dict(batch=8, seed=0) | wrong))
    with pytest.raises(ValueError, match="count must be at least 1, got 0"): next(batches(Numbers(0), 8, 0))


# --- names ---

@pytest.mark.parametrize("name, message", [
    ("scene", "data must be one of digits, scenes, cifar10, a folder, hub:OWNER/NAME or stream:OWNER/NAME, got 'scene': did you mean scenes?"),
    ("CIFAR-10", "got 'CIFAR-10': did you mean cifar10?"), ("no/such/folder", "got 'no/such/folder': there is no such folder"), ("hub:", "got 'hub:'"), ("zebra", "got 'zebra'$")])
def test_unknown_names(name, message):
    for refuse in (check_data, load_data):
        with pytest.raises(ValueError, match=message.replace("?", r"\?")): refuse(name)


def test_names_and_sizes(tmp_path):
    assert len(load_data(str(fill(tmp_path, ["a/1.png"])), size=8)) == 1 and isinstance(load_data("scenes", "held-out", 16), Scenes)
    with pytest.raises(ValueError, match="size must be a whole number of pixels, at least 1, got 0"): load_data("scenes", size=0)
    with pytest.raises(ValueError, match="size must be a multiple of 8, got 30"): load_data("digits", size=30)


def test_cifar_from_its_own_files(tmp_path, monkeypatch):
    "Small files in CIFAR-10's format, with their own checksums: torchvision does the rest."
    CIFAR10 = pytest.importorskip("torchvision.datasets", reason="torchvision is not installed").CIFAR10
    monkeypatch.setenv("PIXNERD_DATA", str(tmp_path))
    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")       # nobody listens there
    with pytest.raises(ValueError, match="cifar10 cannot be downloaded into .*put cifar-10-python.tar.gz there by hand, or set PIXNERD_DATA"): load_data("cifar10")
    (folder := tmp_path/"cifar-10-batches-py").mkdir()
    rng = np.random.default_rng(0)
    def write(name, content):
        (folder/name).write_bytes(pickle.dumps(content))
        return [name, hashlib.md5((folder/name).read_bytes()).hexdigest()]
    def some(n): return {"data": rng.integers(0, 256, (n, 3072), dtype=np.uint8), "labels": [i % 10 for i in range(n)]}
    made = some(20)
    monkeypatch.setattr(CIFAR10, "train_list", [write("data_batch_1", made), write("data_batch_2", some(10))])
    monkeypatch.setattr(CIFAR10, "test_list", [write("test_batch", some(10))])
    name, md5 = write("batches.meta", {"label_names": "airplane automobile bird cat deer dog frog horse ship truck".split()})
    monkeypatch.setattr(CIFAR10, "meta", {"filename": name, "key": "label_names", "md5": md5})
    train, held = load_data("cifar10", "train", 32), load_data("cifar10", "held-out", 48)
    assert (len(train), len(held), train.names[3], train[13].label) == (30, 10, "cat", 3)
    assert torch.equal(train[7].image, torch.from_numpy(made["data"][7].reshape(3, 32, 32))) and held[0].image.shape == (3, 48, 48)


# --- the hub, from local files ---

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
    image, classes, text = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}, datasets.ClassLabel(names=["low", "high"]), datasets.Value("string")
    rows = [{"image": {"bytes": png(i), "path": None}, "label": int(i > 60), "caption": f"number {i}"} for i in range(120)]
    def part(some, *columns): return [{c: row[c] for c in columns} for row in some]
    for k, (start, end) in enumerate([(0, 37), (37, 78), (78, 120)]): save(folder/f"classes/train-{k}.parquet", part(rows[start:end], "image", "label"), {"image": datasets.Image(), "label": classes})
    save(folder/"split/train.parquet", part(rows[:90], "image", "caption"), {"image": image, "caption": text})
    save(folder/"split/validation.parquet", part(rows[90:], "image", "caption"), {"image": image, "caption": text})
    two = [{"image": r["image"], "fine": r["label"], "coarse": 1 - r["label"]} for r in rows[:30]]
    save(folder/"two/train.parquet", two, {"image": datasets.Image(), "fine": classes, "coarse": classes})
    save(folder/"none/train.parquet", [{"score": 1.5, "when": "now"}], {"score": datasets.Value("float32"), "when": text})
    yield folder
    datasets.enable_progress_bars()
    datasets.config.HF_DATASETS_CACHE = cache


def same(a: Example, b: Example) -> bool: return torch.equal(a.image, b.image) and a.label == b.label


@pytest.mark.parametrize("name, split, count, names", [("classes", "train", 114, ["low", "high"]), ("classes", "held-out", 6, ["low", "high"]),
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
    fill(tmp_path, [f"train/{c}/{i}.png" for c in "ab" for i in range(4)] + [f"test/{c}/{i}.png" for c in "ab" for i in range(2)])
    for split in ("train", "held-out"):
        found = [load_data(kind + str(tmp_path), split, 4) for kind in ("", "hub:", "stream:")]
        assert all(data.names == ["a", "b"] for data in found)
        sets = [sorted((e.label, e.image.flatten().tolist()) for e in examples) for examples in ([found[0][i] for i in range(len(found[0]))], [found[1][i] for i in range(len(found[1]))], list(found[2]))]
        assert sets[0] == sets[1] == sets[2]


def flat(found): return [(e.images, list(e.labels), e.skipped) for e in found]


def equal(a, b) -> bool: return len(a) == len(b) and all(torch.equal(x[0], y[0]) and x[1:] == y[1:] for x, y in zip(a, b))


@pytest.mark.parametrize("block", [1000, 16])
def test_a_stream_keeps_the_promises_of_batches(hub, block):
    def fresh():
        stream = Stream(f"stream:{hub/'split'}", "train", 8)
        stream.block = block
        return stream
    whole = flat(islice(batches(fresh(), 12, seed=3), 24))                                 # more than three epochs of 90
    assert equal(flat(islice(batches(fresh(), 12, seed=3, workers=3), 24)), whole)
    known = fresh()
    for start in (0, 1, 5, 7, 8, 15, 23):
        assert equal(flat(islice(batches(known, 12, seed=3, start=start), 24 - start)), whole[start:]), start
        assert equal(flat(islice(batches(fresh(), 12, seed=3, start=start), 24 - start)), whole[start:]), start
    parts = [flat(islice(batches(fresh(), 12, 3, 2, p, 2, 3, workers=p), 9)) for p in range(2)]
    for s in range(3):
        together = [b for p in parts for b in p[3 * s:3 * s + 3]]
        assert torch.equal(torch.cat([b[0] for b in together]), whole[2 + s][0]) and sum((b[1] for b in together), []) == whole[2 + s][1]
    labels = [label for b in whole for label in b[1]]
    expected = sorted(e.label for e in fresh())
    if block == 1000: assert all(sorted(labels[90 * e:90 * e + 90]) != labels[90 * e:90 * e + 90] and set(labels[90 * e:90 * e + 90]) <= set(expected) for e in range(3))
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
        with pytest.raises(ValueError, match=r"cannot tell which column holds classes or captions; add #COLUMN for one of: image \(picture\), fine \(class\), coarse \(class\)"): load_data(f"{kind}:{hub/'two'}")
        assert load_data(f"{kind}:{hub/'two'}#coarse").names == ["low", "high"]
        with pytest.raises(ValueError, match=r"no column, or more than one, may hold the pictures: score \(float32\), when \(text\)"): load_data(f"{kind}:{hub/'none'}")
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
    assert ["pip install datasets" in said[0], "pip install datasets" in said[1], "pip install torchvision" in said[2], len(said)] == [True, True, True, 3]


# --- scenes ---

SOME = {split: [load_scenes(split, 32).scene(i) for i in range(4000)] for split in ("train", "held-out")}


def test_held_out_compositions_are_never_trained_on():
    shown = {split: {(t.shape, t.colour) for s in some for t in s.objects} for split, some in SOME.items()}
    assert shown["train"] == set(PAIRS["train"]) and shown["held-out"] == set(PAIRS["held-out"]) and not shown["train"] & shown["held-out"]
    for said in (0, 1):                                     # every shape and every colour is in both
        assert {p[said] for p in PAIRS["train"]} == {p[said] for p in PAIRS["held-out"]} == set((SHAPES, COLOURS)[said])
    full = {split: {caption(s) for s in some if s.skill == "attribution"} for split, some in SOME.items()}
    assert not full["train"] & full["held-out"]


def test_every_word_skill_and_relation_is_taught():
    some = SOME["train"]
    assert {w for s in some for w in caption(s).split()} == set(VOCABULARY) and len(VOCABULARY) < 50
    assert {s.skill for s in some} == set(SKILLS) and {s.relation for s in some} == {*RELATIONS, *PLACES, ""}
    assert {s.ground for s in some} == set(range(len(GROUNDS))) and {g.count for s in some for g in s.groups} == {1, 2, 3, 4}


@pytest.mark.parametrize("split", ["train", "held-out"])
def test_scenes_are_true(split):
    "What a caption says is what its picture holds; nothing overlaps or leaves the picture."
    for scene in SOME[split]:
        assert parse_caption(caption(scene)) == (scene.groups, scene.relation)
        assert len(scene.objects) == sum(g.count for g in scene.groups)
        left = list(scene.objects)
        lots = [[left.pop(0) for _ in range(g.count)] for g in scene.groups]
        for group, lot in zip(scene.groups, lots):
            assert all(t.shape == group.shape and group.colour in ("", t.colour) and group.size in ("", t.size) for t in lot)
        for t in scene.objects: assert REACH * t.radius <= min(t.x, t.y, 1 - t.x, 1 - t.y)
        for a, b in itertools.combinations(scene.objects, 2): assert np.hypot(a.x - b.x, a.y - b.y) > REACH * (a.radius + b.radius)
        if len(lots) > 1:
            a, b = lots
            gap = {"left of": min(t.x for t in b) - max(t.x for t in a), "right of": min(t.x for t in a) - max(t.x for t in b),
                   "above": min(t.y for t in b) - max(t.y for t in a), "below": min(t.y for t in a) - max(t.y for t in b)}
            assert gap.get(scene.relation, 1) > .1 and a[0].shape != b[0].shape and a[0].colour != b[0].colour
        elif scene.relation:
            t, = scene.objects
            assert {"on the left": t.x < .4, "on the right": t.x > .6, "at the top": t.y < .4, "at the bottom": t.y > .6, "in the centre": max(abs(t.x - .5), abs(t.y - .5)) < .2}[scene.relation]


@pytest.mark.parametrize("small", [16, 32, 48])
def test_every_resolution_shows_the_same(small):
    for scene in SOME["train"][:60]:
        far = (F.avg_pool2d(draw_scene(scene, 2 * small), 2) - draw_scene(scene, small)).abs() / 2
        assert far.mean() < .006 and far.max() < .08, caption(scene)
    assert draw_scene(scene, 37).shape == (3, 37, 37) and draw_scene(scene, 1).shape == (3, 1, 1)


@pytest.mark.parametrize("shape", SHAPES)
def test_distances_agree_with_areas_and_slopes(shape):
    "The inside has the area of the polygon, and distance grows by one a radius."
    line = (np.arange(800, dtype=np.float32) + .5) / 250 - 1.6
    d = distance(shape, line[None], line[:, None])
    points = SHAPES[shape]
    area = np.pi if points is None else abs(np.sum(points[:, 0] * np.roll(points[:, 1], -1) - points[:, 1] * np.roll(points[:, 0], -1))) / 2
    assert (d < 0).mean() * 3.2 ** 2 == pytest.approx(area, rel=.01)
    slope = np.hypot(*np.gradient(d, 1 / 250))
    assert np.median(slope) == pytest.approx(1, abs=1e-3) and (np.abs(slope - 1) < .05).mean() > .97


def test_scenes_are_the_same_in_every_process():
    code = "import hashlib; from pixnerd.scenes import scenes; print(hashlib.sha256(b''.join(e.image.numpy().tobytes() + e.label.encode() for e in map(load_scenes('train', 24).__getitem__, range(40)))).hexdigest())"
    assert len({python(code, PYTHONHASHSEED=str(k)) for k in (1, 2)}) == 1
    assert [e.label for e in map(load_scenes("train", 24).__getitem__, range(6))] != [e.label for e in map(Scenes("train", 24, seed=1).__getitem__, range(6))]


def test_a_picture_is_its_truth():
    "Each object's own colour is at its centre, and the ground is at the corners."
    def rgb(code): return torch.tensor([int(code[i:i + 2], 16) / 127.5 - 1 for i in (1, 3, 5)])
    for i, scene in enumerate(SOME["train"][:200]):
        drawn = draw_scene(scene, 96)
        for t in scene.objects:
            middle = drawn[:, int(t.y * 96), int(t.x * 96)]
            nearest = min(COLOURS, key=lambda c: (rgb(COLOURS[c]) - middle).abs().sum())
            assert nearest == t.colour
        example = load_scenes("train", 96)[i]
        assert example.label == caption(scene) and (example.image / 127.5 - 1 - drawn).abs().max() <= 1 / 255 + 1e-6


def test_colours_can_be_told_apart_by_the_colour_blind():
    "CIELAB distance between any two colours, and from the grounds, as seen without one kind of cone (Machado, Oliveira and Fernandes, 2009)."
    seen = {"all cones": np.eye(3), "no red": [[.152286, 1.052583, -.204868], [.114503, .786281, .099216], [-.003882, -.048116, 1.051998]],
            "no green": [[.367322, .860646, -.227968], [.280085, .672501, .047413], [-.01182, .04294, .968881]],
            "no blue": [[1.255528, -.076749, -.178779], [-.078411, .930809, .147602], [.004733, .691367, .3039]]}
    def lab(code, cones):
        c = np.array([int(code[i:i + 2], 16) / 255 for i in (1, 3, 5)])
        c = np.clip(cones @ np.where(c <= .04045, c / 12.92, ((c + .055) / 1.055) ** 2.4), 0, 1)
        x = np.array([[.4124, .3576, .1805], [.2126, .7152, .0722], [.0193, .1192, .9505]]) @ c / [.9505, 1, 1.089]
        f = np.where(x > .008856, np.cbrt(x), 7.787 * x + 16 / 116)
        return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])
    for name, cones in seen.items():
        colours = {k: lab(c, np.array(cones)) for k, c in COLOURS.items()}
        for a, b in itertools.combinations(colours, 2): assert np.linalg.norm(colours[a] - colours[b]) > 12, (name, a, b)
        for a, ground in itertools.product(colours, itertools.chain(*GROUNDS)): assert np.linalg.norm(colours[a] - lab(ground, np.array(cones))) > 12, (name, a, ground)
