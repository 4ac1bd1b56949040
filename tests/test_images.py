"Pictures and folders as they come: odd and broken files, other people's folders, and what they cost in memory."

import io
import json
import os
import pickle
import random
import warnings
import zlib
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from files import LINUX, fill, python
from pixnerd.data import batches, load_data
from pixnerd.image_sources import open_images
from pixnerd.images import (
    Folder, PackedStrings, _by_number, crop_square, is_picture, open_picture, read_head, why_unreadable)
from pixnerd.run_folder import read_log
from pixnerd.run_settings import TrainConfig
from pixnerd.scenes import load_scenes
from pixnerd.training import train


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
        checksum = zlib.crc32(chunk).to_bytes(4, "big")
        return b"\x89PNG\r\n\x1a\n\x00\x00\x00\r" + chunk + checksum + b"\x00\x00\x00\x0aIDAT" + bytes(14)
    put("01 plain.png")
    put("02 UPPER.JPG", quality=98)
    put("03 grey.png", picture.convert("L"))
    put("04 cmyk.jpg", picture.convert("CMYK"), quality=98)
    put("05 sixteen.png", Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257))
    put("06 palette.png", picture.quantize(64))
    put("07 bits.png", picture.convert("1"))
    clear = picture.convert("RGBA")
    clear.putalpha(Image.fromarray(np.uint8(255 * (np.mgrid[:60, :90][1] < 45))))
    put("08 clear.png", clear)
    see_through = picture.quantize(64)
    put("09 clear palette.png", see_through, transparency=see_through.getpixel((80, 5)))
    put("10 moving.gif", picture.quantize(64), save_all=True, append_images=[picture.rotate(90).quantize(64)])
    exif = Image.Exif()
    exif[0x0112] = 6                                        # to be turned clockwise
    put("11 turned.jpg", picture.transpose(Image.Transpose.ROTATE_90), exif=exif, quality=98)
    put("12 one pixel.png", Image.new("RGB", (1, 1), (10, 20, 30)))
    put("13 twenty million.png", Image.new("RGB", (5000, 4000), (40, 50, 60)))
    whole = (folder/"02 UPPER.JPG").read_bytes()
    (folder/"20 cut off.jpg").write_bytes(whole[:len(whole) * 2 // 3])
    (folder/"21 text.png").write_text("not a picture")
    (folder/"22 empty.webp").touch()
    (folder/"23 huge.png").write_bytes(png_header(60_000, 60_000))
    (folder/"24 large.png").write_bytes(png_header(10_000, 10_000))
    put("25 float.tiff", Image.fromarray(np.float32(np.ones((9, 9)))))
    put("26 held out.png")                                  # the twentieth file
    (folder/"27 script.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    (folder/"28 nowhere.png").symlink_to("missing.png")
    put("29 thread.png", Image.new("L", (1, 40_000)))
    (folder/"30 ünïcode 图.webp").write_bytes((folder/"01 plain.png").read_bytes())        # a PNG: formats go by content
    (folder/"31 link.png").symlink_to("01 plain.png")
    for name in (".hidden.png", "notes.md", "table.csv"): (folder/name).touch()
    (folder/"again").symlink_to(folder)                     # a circle
    os.mkfifo(folder/"32 pipe.png")                         # opening it would wait for ever
    return folder.parent


LISTING = {"20 cut off.jpg": "truncated", "21 text.png": "not a picture", "22 empty.webp": "not a picture",
           "23 huge.png": "too large", "24 large.png": "too large: 10000 × 10000", "25 float.tiff": "32-bit pixels",
           "27 script.jpg": "not a picture", "28 nowhere.png": "no such file", "29 thread.png": "too thin: 1 × 40000"}


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
    assert {path.removeprefix("things/") for path in listed} == set(LISTING)
    assert all(why in listed[f"things/{path}"] for path, why in LISTING.items())
    assert read_log(tmp_path/"run")[-1]["unreadable"] == len(LISTING)


def test_pictures_come_through_workers_whole(nasty):
    data = Folder(nasty, size=64)
    plain, read = (list(islice(batches(data, 8, 1, workers=w), 6)) for w in (0, 2))
    assert all(torch.equal(a.images, b.images) and a.skipped == b.skipped for a, b in zip(plain, read))
    assert {p.removeprefix("things/") for b in read for p, _ in b.skipped} == set(LISTING)


def test_each_kind_of_picture_looks_as_it_should(nasty, picture):
    data = Folder(nasty, size=60)
    image = {data.where(i).removeprefix("things/")[:2]: data[i].image.int() for i in range(len(data))}
    def far(a, b): return (a - b).abs().float().mean().item()
    grey = torch.from_numpy(np.array(crop_square(picture.convert("L").convert("RGB"), 60))).permute(2, 0, 1).int()
    for name in ("02", "04", "06", "10", "11"): assert far(image["01"], image[name]) < 8, name
    assert far(image["03"], grey) < 1 and far(image["05"], grey) < 1
    assert set(image["07"].unique().tolist()) <= set(range(256))
    assert torch.equal(image["08"][:, :, 32:], torch.full((3, 60, 28), 255))
    assert torch.equal(image["08"][:, :, :26], image["01"][:, :, :26])
    assert (image["09"] == 255).all(0).any() and far(image["09"][:, :, :20], image["01"][:, :, :20]) < 8
    assert torch.equal(image["12"], torch.tensor([10, 20, 30]).int()[:, None, None].expand(3, 60, 60))
    assert torch.equal(image["13"][:, 0, 0], torch.tensor([40, 50, 60]).int())
    assert torch.equal(image["30"], image["01"]) and torch.equal(image["31"], image["01"])
    assert all(torch.equal(image[name], image["30"])
               for name in ("20", "25", "28"))       # replaced by the next that can be read


def test_replacement_is_a_function_of_the_index_alone(nasty):
    data = Folder(nasty, size=16)
    order = list(range(13, len(data)))
    random.Random(0).shuffle(order)
    by_chance = {i: data[i] for i in order}
    assert all(torch.equal(by_chance[i].image, data[i].image) and by_chance[i].skipped == data[i].skipped
               for i in order)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"]),
       st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6), st.floats(.2, 1.5))
def test_damage_anywhere_gives_a_picture_or_a_reason(kind, changes, end):
    "A file with some bytes changed, perhaps cut off: square and RGB, or refused in one line, and nothing is printed."
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(out, kind)
    data = bytearray(out.getvalue())
    for place, value in changes: data[int(place ** 2 * (len(data) - 1))] = value  # more of them near the beginning
    data = bytes(data[:int(end * len(data))])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try: image = crop_square(open_picture(data), 8)
        except Exception as error: assert 0 < len(why := why_unreadable(error)) <= 200 and "\n" not in why
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
    "Without Pillow: where only halving and cutting are left, a pixel is the mean of a block, up to rounding."
    block = 2 ** halvings
    pixels = np.random.default_rng(seed).integers(0, 256, (size * block, (size + wider) * block, 3), dtype=np.uint8)
    means = pixels.reshape(size, block, size + wider, block, 3).mean((1, 3))[:, wider // 2:wider // 2 + size]
    assert np.abs(np.array(crop_square(Image.fromarray(pixels), size)) - means).max() <= max(halvings, .01)


def test_class_folders_and_what_is_held_out(tmp_path):
    folder = fill(tmp_path,
                  [f"{name}/{i:03d}.png" for name in ("zebra", "ant") for i in range(45)] + ["cat/deep/er/0.png"])
    (folder/"no images here").mkdir()
    train, held = Folder(folder, "train", 4), Folder(folder, "held-out", 4)
    assert train.names == held.names == ["ant", "cat", "zebra"]
    assert [held.where(i) for i in range(len(held))] == [f"{name}/{i:03d}.png" for name in ("ant", "zebra")
                                                         for i in (19, 39)]
    assert len(train) + len(held) == 91
    assert not {*map(train.where, range(len(train)))} & {*map(held.where, range(len(held)))}
    assert [train[i].label for i in (0, 43, 44)] == [0, 1, 2]
    assert [e.label for e in map(held.__getitem__, range(4))] == [0, 0, 2, 2]
    Image.new("RGB", (4, 4)).save(folder/"loose.png")
    with pytest.raises(ValueError, match=r"holds images beside its class folders \(1, for example loose.png\)"):
        Folder(folder)


@pytest.mark.parametrize("name", ["held-out", "val", "test"])
def test_split_folders(tmp_path, name):
    folder = fill(tmp_path,
                  [f"train/{c}/{i}.png" for c in "abc" for i in range(3)] + [f"{name}/{c}/x.png" for c in "bc"])
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
    assert train.names is None and train[0].label == "the picture 00"
    assert [held.where(i) for i in range(len(held))] == ["y/04.png"]
    (folder/"x/00.txt").write_text(" \n")
    (folder/"x/01.txt").unlink()
    (folder/"x/02.txt").write_bytes(b"\xff\xfe\x00")
    found = Folder(folder, size=4)[0]
    assert found.label == "the picture 03"
    assert [why for _, why in found.skipped[:2]] == ["its caption is empty", "no caption beside it"]
    assert len(found.skipped) == 3
    for i in range(4, 15): (folder/f"x/{i:02d}.txt").unlink()
    for i in range(0, 12): (folder/f"y/{i:02d}.txt").unlink()
    with pytest.raises(ValueError, match="has captions for 6 of its 30 images"): Folder(folder)


def test_folders_with_nothing_to_learn_from_say_what_they_hold(tmp_path):
    (tmp_path/"a").mkdir()
    with pytest.raises(ValueError, match=r"holds no images: 0 files \(it is empty\)"): Folder(tmp_path)
    for name in ("a/1.pdf", "a/2.pdf", "b.csv", "README"): (tmp_path/name).touch()
    with pytest.raises(ValueError, match=r"holds no images: 4 files \(2 × .pdf, 1 × no suffix, 1 × .csv\)"):
        Folder(tmp_path)
    (tmp_path/"a/3.png").touch()
    with pytest.raises(ValueError, match=r"holds no usable image \(1 found\): .*a/3.png: not a picture"):
        Folder(tmp_path)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])) | st.binary().map(os.fsdecode)))
def test_texts_are_kept_as_they_are(texts):
    packed = PackedStrings(texts)
    assert [packed[i] for i in range(len(packed))] == texts


@LINUX
def test_a_worker_shares_the_list_of_a_million_files():
    "Python strings are copied into a worker that looks at them, the packed list is not: a fork's private memory."
    grown = python("""
import gc, os
from pixnerd.images import PackedStrings
def private():
    with open("/proc/self/smaps_rollup") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith("Private"))
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
    assert strings > 40_000 and packed < 8_000, f"KB copied by a look at a million names: {strings}, packed {packed}"


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
def private(pid):
    with open(f"/proc/{{pid}}/smaps_rollup") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith("Private"))
def family(): return [os.getpid(), *map(int, Path(f"/proc/self/task/{{os.getpid()}}/children").read_text().split())]
found = batches(Folder({str(tmp_path)!r}, size=8), 50, seed=0, workers=2)
for step, batch in zip(range(120), found):
    if step == 30: before = {{pid: private(pid) for pid in family()}}
after = {{pid: private(pid) for pid in before}}
print(len(before), max(after[pid] - before[pid] for pid in before))
""", OMP_NUM_THREADS="1")
    processes, kilobytes = map(int, grown.split())
    assert processes == 3 and kilobytes < 6_000


def test_classes_called_by_numbers_come_in_their_order(tmp_path):
    "Class ids follow 1, 2, 10, not 1, 10, 2; every 20th of each class is held out, and nothing is in both splits."
    names = [f"{c}/{i:02d}.png" for c in (0, 1, 2, 9, 10, 11, 100) for i in range(20 + c % 3)]
    folder = fill(tmp_path, names)
    train, held = Folder(folder, "train", 4), Folder(folder, "held-out", 4)
    assert train.names == held.names == ["0", "1", "2", "9", "10", "11", "100"]
    for data in (train, held):
        for i in range(len(data)): assert data.names[data[i].label] == data.where(i).split("/")[0]
    assert [held.where(i) for i in range(len(held))] == [f"{c}/19.png" for c in train.names]
    assert sorted([*map(train.where, range(len(train))), *map(held.where, range(len(held)))]) == sorted(names)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["", "a", "n0", "Klasse "]), st.integers(0, 2000)), unique=True))
def test_numbers_in_names_are_compared_as_numbers(pairs):
    names = [f"{text}{number}" for text, number in pairs]
    found = sorted(names, key=_by_number)
    assert sorted(found) == sorted(names)
    for text in ("", "a", "Klasse "):
        mine = [name for name in found if name.startswith(text) and name[len(text):].isdecimal()]
        numbers = [int(name[len(text):]) for name in mine]
        assert numbers == sorted(numbers)


GREY = [("L", "png"), ("1", "png"), ("LA", "png"), ("I;16", "png"), ("P", "png"), ("L", "jpg"), ("L", "gif"),
        ("LA", "tiff"), ("I;16", "tiff"), ("L", "tga"), ("L", "jp2")]
COLOURED = [("RGB", "png"), ("RGBA", "png"), ("P", "png"), ("CMYK", "jpg"), ("CMYK", "tiff"), ("RGB", "avif"),
            ("RGB", "webp"), ("RGB", "tga"), ("RGB", "jp2"), ("RGB", "qoi"), ("RGB", "dds"), ("P", "gif"), ("LAB", "tiff")]


def in_mode(picture, mode, grey):
    picture = picture.convert("L") if grey else picture
    if mode == "I;16": return Image.fromarray(np.asarray(picture).astype(np.uint16) * 257)
    if mode == "P": return picture.quantize(32)
    if mode == "LAB": return Image.merge("LAB", picture.split())
    return picture.convert(mode)


@pytest.mark.parametrize("grey", [True, False])
def test_grey_and_size_are_told_from_the_beginning_of_a_file(picture, tmp_path, grey):
    "Whatever mode and format a grey picture is kept in, and though it lies on its side."
    for mode, ending in GREY if grey else COLOURED:
        path = tmp_path/f"{mode.replace(';', '')}.{ending}"
        in_mode(picture, mode, grey).save(path)
        assert is_picture(path) and read_head(path) == ((90, 60), grey), path
        assert open_picture(path).size == (90, 60)
    exif = Image.Exif()
    exif[0x0112] = 6
    in_mode(picture, "LA" if grey else "RGB", grey).save(tmp_path/"lies.png", exif=exif)
    assert read_head(tmp_path/"lies.png") == ((60, 90), grey) and open_picture(tmp_path/"lies.png").size == (60, 90)


def test_a_set_of_mixed_greys_is_grey_for_measurements_too(picture, tmp_path):
    for mode, ending in GREY: in_mode(picture, mode, True).save(tmp_path/f"{mode.replace(';', '')}.{ending}")
    found = open_images(tmp_path)
    assert found.shape == (1, 60, 90)
    grey = torch.from_numpy(np.array(picture.convert("L"))).int()
    for path, image in zip(found.items, map(found.read, found.items)):
        far = (image[0].int() - grey).abs().float().mean()
        assert path.stem == "1" or far < 6, path
    picture.save(tmp_path/"z.png")
    assert open_images(tmp_path).shape == (3, 60, 90)


def test_a_format_that_a_plugin_brings_is_read(picture, tmp_path, monkeypatch):
    "A plugin tells Pillow of its format; without it a file is no picture."
    from PIL import BmpImagePlugin
    picture.save(tmp_path/"1.bmp")
    assert not is_picture("a/1.odd")
    class Odd(BmpImagePlugin.BmpImageFile): format = "ODD"
    monkeypatch.setitem(Image.OPEN, "ODD", (Odd, lambda first: first.startswith(b"BM")))
    monkeypatch.setitem(Image.EXTENSION, ".odd", "ODD")
    (tmp_path/"1.bmp").rename(tmp_path/"1.ODD")
    assert is_picture("a/1.ODD") and np.array_equal(open_picture(tmp_path/"1.ODD"), picture)


@pytest.mark.parametrize("ending", [".eps", ".ps", ".pdf", ".wmf", ".mpg", ".h5", ".txt", ".json", "", ".db"])
def test_what_other_programs_read_is_no_picture(ending): assert not is_picture(f"a/b{ending}")


def test_a_measurement_passes_over_empty_files_and_dead_links_with_a_warning(tmp_path):
    root = fill(tmp_path/"d", ["a/0.png", "a/1.png"])
    (root/"b").mkdir()
    for name in ("a/2.png", "b/0.png"): (root/name).touch()
    (root/"a/3.png").symlink_to("nowhere")
    with pytest.warns(match="3 empty files, or links to nowhere, are passed over, for example a/2.png"):
        assert len(open_images(root)) == 2
    (root/"a/2.png").write_bytes(b"damaged")
    with pytest.warns(), pytest.raises(ValueError, match="2.png is damaged, or no image"): open_images(root)
