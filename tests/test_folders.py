"What folders are understood as: splits, wrappers, litter, captions of every custom, tables with mistakes."

import csv
import json
import os
import re
import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from files import fill
from pixnerd.data import describe_data, load_data
from pixnerd.images import Folder, find_pictures, find_splits
from pixnerd.records import write_record
from pixnerd.run_folder import changed_data, check_data_unchanged


def labels(data: Folder) -> dict:
    "What each picture is told to show, of those that can be read."
    return {data.where(i): data[i].label for i in range(len(data)) if not data[i].skipped}


def litter(folder: Path) -> Path:
    "What desktops, disks and this package leave in folders."
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "__MACOSX/train/cat/._0.png", "__MACOSX/train/cat/0.png",
                 "@eaDir/0.png/SYNOPHOTO_THUMB_M.jpg", "lost+found/x.png", ".ipynb_checkpoints/0-checkpoint.png",
                 "run/config.json", "run/made_by.json", "run/samples/step-000500.png",
                 "drawn/settings.json", "drawn/samples.json", "drawn/images/000000.png"):
        (folder/name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".png") and "._" not in name: Image.new("RGB", (4, 4)).save(folder/name)
        else: (folder/name).write_bytes(b"\0\5\x16\7")
    return folder


TRAIN = ["train", "Train", "TRAIN", "Training", "training_set", "train2017"]
HELD = ["val", "Test", "VAL", "Testing", "test_set", "held-out", "valid", "validation", "dev"]


@pytest.mark.parametrize("train, held", [(t, HELD[i]) for i, t in enumerate(TRAIN)] + [("train", h) for h in HELD])
@pytest.mark.parametrize("around", ["", "pets/", "ILSVRC/Data/CLS-LOC/"])
def test_splits_in_every_spelling_with_litter_beside(tmp_path, train, held, around):
    names = [f"{around}{s}/{c}/{i}.png" for s in (train, held) for c in ("cat", "dog") for i in (1, 2)]
    root = fill(tmp_path/"d", names)
    litter(root/around)
    (root/around/train/"ghost").mkdir()
    (root/around/train/"ghost/0.png").touch()               # an empty file makes no class
    found = [Folder(root, split, 4) for split in ("train", "held-out")]
    assert all(data.names == ["cat", "dog"] for data in found)
    assert [data.folder for data in found] == [root/around/train, root/around/held]
    assert all(labels(data) == {"cat/1.png": 0, "cat/2.png": 0, "dog/1.png": 1, "dog/2.png": 1} for data in found)


def test_what_lies_beside_splits_is_counted_and_classes_may_be_called_like_splits(tmp_path):
    root = fill(tmp_path, [f"{s}/{c}/0.png" for s in ("train", "test", "extra") for c in "ab"] + ["sheet.png"])
    data = Folder(root, size=4)
    assert data.names == ["a", "b"] and data.understood["left out"] == {"images elsewhere": 3}
    fill(tmp_path/"x", ["train/0.png", "test/0.png", "car/0.png"])
    assert Folder(tmp_path/"x", size=4).names == ["car", "test", "train"]
    assert find_splits(["train/0.png", "training/0.png", "test/0.png"]) == {"train": "", "held-out": None}


@pytest.mark.parametrize("names, classes", [
    (["pets/pets/cat/0.png", "pets/pets/dog/0.png"], ["cat", "dog"]),
    (["a/b/c/train/x/0.png", "a/b/c/train/y/0.png"], ["x", "y"]),
    (["train/train/cat/0.png", "train/train/dog/0.png", "test/test/cat/0.png"], ["cat", "dog"]),
    (["cat/0.png", "cat/1.png"], ["cat"]), (["cat/2019/0.png", "dog/0.png"], ["cat", "dog"]),
    ([f"seg_{s}/seg_{s}/{c}/0.png" for s in ("train", "test") for c in ("sea", "wood")] + ["seg_pred/0.png"], ["sea", "wood"]),
    (["test_tube/0.png", "train_station/0.png"], ["test_tube", "train_station"]),
    (["images/train/cat/0.png", "images/train/dog/0.png", "images/val/dog/0.png"], ["cat", "dog"])])
def test_wrappers_are_looked_into(tmp_path, names, classes):
    root = fill(tmp_path, names)
    (root/"labels").mkdir()
    (root/"labels/notes.xml").write_text("<a/>")
    data = Folder(root, size=4)
    assert data.names == classes and str(data.folder) in describe_data(data)


PARTS = st.sampled_from(["train", "Test", "val", "a", "b", "c", "deep"])


@settings(max_examples=200, deadline=None)
@given(st.sets(st.tuples(st.lists(PARTS, max_size=4).map(tuple), st.sampled_from(["0.png", "1.png"])), min_size=1))
def test_splits_against_a_plain_reading(found):
    "The training and held-out pictures never share one, and wrappers only ever drop what all pictures share."
    paths = sorted("/".join([*folders, name]) for folders, name in found)
    if any(p != q and q.startswith(f"{p}/") for p in paths for q in paths): return
    lies = find_splits(paths)
    train, held = ({p for p in paths if lies[s] is not None and p.startswith(lies[s])} for s in ("train", "held-out"))
    assert train and not train & held
    if lies["held-out"] is None:
        assert train == set(paths) or lies["train"].split("/")[-2] == "train" or "train/" in lies["train"]
    else:
        first = re.match("(.*?)train/", lies["train"])[1]
        assert held and lies["held-out"][len(first):].split("/")[0] in ("Test", "val")
        assert all(p.startswith(first) for p in paths)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("custom", [
    "jsonl", "csv", "csv;", "bom", ".txt", ".caption", ".png.txt", ".json", ".Txt", "json text"])
def test_captions_of_every_custom(tmp_path, custom, wide):
    "Beside each picture or in a table, flat or nested; a comma in a caption is kept."
    names = [f"{'abc'[i % 3] + '/' if wide else ''}{i:02d}.png" for i in range(12)]
    root, said = fill(tmp_path, names), {name: f"a red circle, {name[-6:]}" for name in names}
    rows = [{"file_name": name, "text": text} for name, text in said.items()]
    if custom == "jsonl": (root/"metadata.jsonl").write_text("\r\n".join(map(json.dumps, rows)) + "\n\n")
    elif custom[0] in "cb":
        with open(root/"metadata.csv", "w", newline="", encoding="utf-8-sig" if custom == "bom" else "utf-8") as file:
            writer = csv.DictWriter(file, ["file_name", "text"], delimiter=";" if custom == "csv;" else ",")
            writer.writeheader()
            writer.writerows(rows)
    else:
        for name, text in said.items():
            ending = custom if custom[0] == "." else ".json"
            content = json.dumps({"id": 3, "caption": text}) if custom == ".json" else text
            if custom == "json text": content = json.dumps(text)
            (root/name[:-4]).with_suffix(ending).write_text(f"\ufeff{content}\n", encoding="utf-8")
    data = load_data(str(root), size=4)
    assert data.names is None and labels(data) == said and dict(data.captions()) == said
    assert sum(data.understood["captions"].values()) == 12 and not data.understood["left out"]
    assert load_data(str(root), size=4, cond="text").names is None
    asked = load_data(str(root), size=4, cond="class")
    assert asked.names == (["a", "b", "c"] if wide else [root.name]) and asked[0].label == 0


def test_a_table_in_each_split_and_captions_beside_what_it_does_not_name(tmp_path):
    root = fill(tmp_path, [f"{s}/img/{i}.png" for s in ("train", "test") for i in range(4)])
    for s in ("train", "test"):
        rows = [{"file_name": f"img\\{i}.png", "text": f"{s} {i}"} for i in range(3)]
        (root/s/"metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
        (root/s/"img/3.txt").write_text("beside")
    told = {"img/0.png": "test 0", "img/1.png": "test 1", "img/2.png": "test 2", "img/3.png": "beside"}
    assert labels(Folder(root, "held-out", 4)) == told
    assert Folder(root, size=4).understood["captions"] == {"metadata.jsonl": 3, ".txt": 1}


@pytest.mark.parametrize("boxes", ["0 0.51 0.48 0.22 0.31\n1 .2 .3 .1 .1", "Car 0.0 0 -1.5 587.01 173.33 614.1",
                                   "1,2,3,4,dog", json.dumps({"shapes": [1], "imagePath": "a"})])
def test_boxes_are_no_captions(tmp_path, boxes):
    root = fill(tmp_path, [f"{c}/{i}.png" for c in ("cat", "dog") for i in range(3)])
    ending = ".json" if boxes[0] == "{" else ".txt"
    for path in [*root.rglob("*.png")]: path.with_suffix(ending).write_text(boxes)
    (root/"cat/0").with_suffix(ending).write_text("" if ending == ".txt" else "{}")         # nothing in this picture
    for cond in ("auto", "class"): assert Folder(root, size=4, cond=cond).names == ["cat", "dog"]
    with pytest.raises(ValueError, match="has no captions, neither in metadata"): Folder(root, size=4, cond="text")


@pytest.mark.parametrize("text", ["7", "3 4 5", "a photo of 4 cats, 2 dogs, 1 fox", "10 20 30 years on"])
def test_captions_may_hold_numbers(tmp_path, text):
    root = fill(tmp_path, ["0.png", "1.png"], caption=text)
    assert set(labels(Folder(root, size=4)).values()) == {text}


@pytest.mark.parametrize("name, content, says", [
    ("metadata.jsonl", '{"file_name": "0.png", "text": "a"}\n\n{"file_name": \n', r"metadata.jsonl, line 3: no JSON"),
    ("metadata.jsonl", '{"text": "a"}', "line 1: no file_name in"),
    ("metadata.jsonl", '["0.png"]', "line 1: no file_name in"),
    ("metadata.jsonl", '{"file_name": "../0.png", "text": "a"}', "line 1: file_name '../0.png' leads out of the"),
    ("metadata.jsonl", '{"file_name": "/etc/0.png", "text": "a"}', "leads out of the folder"),
    ("metadata.jsonl", '{"file_name": "a/../../0.png", "text": "a"}', "leads out of the folder"),
    ("metadata.jsonl", "[" * 100_000, "line 1: no JSON"),
    ("metadata.csv", "file_name,text\n0.png,a circle, large\n", "line 2: more values than columns; .* need quotes"),
    ("metadata.csv", 'file_name,text\n0.png,"a\n', "metadata.csv, line 2: unexpected end of data"),
    ("metadata.csv", "name,text\n0.png,a\n", "line 2: no file_name in"),
    ("metadata.csv", "file_name,text\n0.png,a red circle é\n".encode("cp1252"), "metadata.csv is not in UTF-8"),
    ("metadata.csv", "file_name,text\n0.png,a\n".encode("utf-16"), "metadata.csv is not in UTF-8")])
def test_broken_tables_are_refused_in_one_line(tmp_path, name, content, says):
    root = fill(tmp_path, ["0.png", "1.png"])
    (root/name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=says) as refused: Folder(root, size=4)
    assert "\n" not in str(refused.value)
    assert Folder(root, size=4, cond="class").names == [root.name]


def test_a_table_that_disagrees_with_its_folder_is_a_warning(tmp_path):
    root = fill(tmp_path, [f"{i}.png" for i in range(6)])
    said = [("0.png", "a"), ("1.png", "b"), ("1.png", "b"), ("2.png", "c"), ("2.png", "d"), ("2.png", "f"),
            ("3.png", "e"), ("9.png", "z")]
    (root/"metadata.jsonl").write_text("\n".join(json.dumps({"file_name": f, "text": t}) for f, t in said))
    with pytest.warns() as told: data = Folder(root, size=4)
    assert [re.search(r"(\d pictures? .*)", str(w.message))[1] for w in told] == [
        "1 pictures are missing, for example 9.png", "1 pictures are told two captions, for example 2.png",
        "2 pictures are not named, for example 4.png"]
    assert labels(data) == {"0.png": "a", "1.png": "b", "3.png": "e"}
    why = dict(pair for i in range(6) for pair in data[i].skipped)
    assert why == {"2.png": "two captions: metadata.jsonl, line 4, and metadata.jsonl, line 6",
                   "4.png": "no caption beside it", "5.png": "no caption beside it"}


@pytest.mark.parametrize("rows, named, texts", [
    ("file_name,label\na/0.png,0\nb/0.png,1\n", 2, 0), ("file_name,text\nx.png,one\ny.png,\n", 0, 1)])
def test_a_table_without_captions_leaves_the_classes(tmp_path, rows, named, texts):
    root = fill(tmp_path, ["a/0.png", "b/0.png"])
    (root/"metadata.csv").write_text(rows)
    with pytest.warns() as told: data = Folder(root, size=4)
    assert f"no captions: of 2 rows {named} name a picture, {texts} have a text" in str(told.pop().message) and not told
    assert data.names == ["a", "b"] and data.understood["left out"] == {"metadata.csv": 1}


def test_a_table_is_read_with_blanks_after_commas_and_names_in_any_case(tmp_path):
    root = fill(tmp_path, ["0.png", "1.png", "a.PNG", "a.png"])
    (root/"metadata.csv").write_text('file_name, text\n0.PNG, "red, round"\n1.png, blue\na.PNG,A\na.png,a\n')
    assert labels(Folder(root, size=4)) == {"0.png": "red, round", "1.png": "blue", "a.PNG": "A", "a.png": "a"}


@pytest.mark.parametrize("name, content, says", [
    ("0.txt", "Käfer".encode("latin-1"), "0.txt: not in UTF-8"), ("0.txt", b"\xff\xfea\0", "0.txt: not in UTF-8"),
    ("0.json", b'{"text": ', "0.json: no JSON")])
def test_the_caption_at_fault_is_named(tmp_path, name, content, says):
    root = fill(tmp_path, ["0.png"]) and fill(tmp_path, ["1.png", "2.png"], caption="{}")
    (root/name).write_bytes(content)
    assert Folder(root, size=4)[0].skipped == (("0.png", says),)


def test_pictures_that_cannot_be_opened_are_counted_by_ending(tmp_path):
    root = fill(tmp_path, ["0.png", "1.png"])
    for name in ("2.svg", "3.SVG", "4.cr2", "notes.md", "5.pdf"): (root/name).write_text("?")
    with pytest.warns(UserWarning, match="2 × .svg, 1 × .cr2 left out|1 × .cr2, 2 × .svg left out"):
        data = Folder(root, size=4)
    assert data.understood["left out"] == {".svg": 2, ".cr2": 1, ".md": 1, ".pdf": 1}
    for path in root.glob("*.png"): path.unlink()
    with pytest.raises(ValueError, match=r"holds no images: 5 files \(2 × .svg, 1 × .cr2, 1 × .pdf, 1 × .md\)"):
        find_pictures(root)


def test_folders_in_which_nothing_can_be_read_are_named(tmp_path):
    root = fill(tmp_path, ["cat/0.png", "dog/0.png", "eel/0.png", "gnu/0.png", "thumbs/0.png", "__pycache__/0.png"])
    for name in ("eel/0.heic", "gnu/0.svg"): (root/name).with_suffix(".png").rename(root/name)
    for name in ("bird", ".hidden", "lost+found"): (root/name).mkdir()
    data = Folder(root, size=4)
    assert data.names == ["cat", "dog"] and "\nno picture that can be read in: bird, eel, gnu" in describe_data(data)


@pytest.mark.parametrize("train, held", ["train_data test_data".split(), "train_images test_images".split(),
    ("Train Images", "Test Images"), "img_train img_val".split(), "train holdout".split(), "train Hold-out".split()])
def test_splits_in_longer_spellings(train, held):
    paths = [f"{split}/{name}/0.png" for split in (train, held) for name in "ab"]
    assert find_splits(paths) == {"train": f"{train}/", "held-out": f"{held}/"}


@pytest.mark.parametrize("names", ["tr te", "train unlabeled", "train train_labels", "test val"])
def test_classes_that_may_be_splits_are_a_warning(tmp_path, names):
    root = fill(tmp_path, [f"{top}/{name}/0.png" for top in names.split() for name in "ab"])
    with pytest.warns(match=f"({'|'.join(names.split())}), .* hold the same folders: are they splits") as told:
        assert len(Folder(root, size=4).names) == 2
    assert len(told) == 1
    fill(tmp_path/"x", ["te/0.png", "tr/0.png", "test/deep/0.png"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(Folder(tmp_path/"x", size=4).names) == 3


def test_a_stray_picture_beside_splits_in_wrappers_is_refused(tmp_path):
    deep = [f"pets/pets/{split}/{name}/0.png" for split in ("train", "test") for name in ("cat", "dog")]
    for i, stray in enumerate(["pets/cover.png", "pets/pets/cover.png"]):
        root = fill(tmp_path/str(i), deep)
        assert Folder(root, size=4).names == ["cat", "dog"]
        fill(root, [stray])
        with pytest.raises(ValueError, match=r"pets' holds images beside folders of splits \(1, for example cover.png"):
            Folder(root, size=4)
    assert Folder(fill(tmp_path/"one", ["cat/0.png", "cat/2019/0.png", "cat/2020/0.png"]), size=4).names == ["cat"]


@pytest.mark.skipif(os.sep == "\\", reason="no file can be called so")
def test_names_with_backslashes_are_told(tmp_path):
    with pytest.warns(match=r"2 names hold backslashes, for example train\\cat.0.png, .* unpack again"):
        Folder(fill(tmp_path, ["train\\cat\\0.png", "train\\dog\\0.png"]), size=4)


def test_what_is_packed_is_to_be_unpacked(tmp_path):
    fill(tmp_path, ["0.png"])
    for name in ("d.zip", "t/0.tar", "t/1.tar"):
        (tmp_path/name).parent.mkdir(exist_ok=True)
        (tmp_path/name).write_bytes(b"PK")
    for name, says in [("d.zip", "it is a file: unpack it"), ("0.png", "it is a file: name its folder"),
                       ("t", r"holds no images: 2 files \(2 × .tar\): unpack them")]:
        with pytest.raises(ValueError, match=f"{says}$"): load_data(str(tmp_path/name), size=4)


NAMES = st.sampled_from(["0.png", "1.PNG", "2.jpg", ".DS_Store", "._0.png", "Thumbs.db", "x.md", "0.txt", "dead.png",
                         "empty.png", "metadata.txt", "desktop.ini"])
TOPS = st.sampled_from(["cat", "dog", "10", "9", "__MACOSX", "@eaDir", ".hidden", "cat/deep", "empty"])


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(st.tuples(TOPS, NAMES), min_size=1))
def test_random_folders_of_odd_files_against_a_plain_oracle(tmp_path_factory, files):
    root = tmp_path_factory.mktemp("odd")
    for top, name in files | {("cat", "0.png"), ("dog", "2.jpg")}:
        path = root/top/name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name == "dead.png": path.symlink_to("nowhere")
        elif name.lower().endswith(("0.png", "1.png", "2.jpg")): Image.new("RGB", (4, 4)).save(path)
        else: path.write_bytes(b"" if name == "empty.png" else b"0 0.1 0.2 0.3 0.4\n")
    seen = [p.relative_to(root) for p in root.rglob("*") if p.is_file() or p.is_symlink()]
    seen = [p for p in seen if not any(part[0] == "." or part in ("__MACOSX", "@eaDir") for part in p.parts)]
    good = [p for p in seen if p.name in ("0.png", "1.PNG", "2.jpg")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = Folder(root, size=4)
    classes = sorted({p.parts[0] for p in good}, key=["9", "10", "cat", "dog", "empty"].index)
    assert data.names == classes
    full = {p.parent for p in good}
    counts = {name: sum(p.parts[0] == name and (p in good or p.suffix == ".png" and p.parent in full) for p in seen)
              for name in classes}
    assert {name: found[0] for name, found in data.understood["folders"].items()} == {
        name: n - n // 20 for name, n in counts.items()}
    assert set(labels(data)) == {str(p) for p in good}


def test_a_run_is_told_what_changed_in_its_data(tmp_path):
    "A class replaced, a folder that grew, files renamed, other captions; and nothing where nothing changed."
    root, out = fill(tmp_path/"d", [f"{c}/{i}.png" for c in "ac" for i in range(6)]), tmp_path/"run"
    (out/"checkpoints/step-000002").mkdir(parents=True)
    def now(): return load_data(str(root), size=4).understood
    check_data_unchanged(out, now())                        # nothing was recorded yet
    write_record(out/"data.json", now())
    litter(root)
    (root/"notes.md").touch()
    assert changed_data(out, now()) == []
    fill(root, ["a/6.png", "a/7.png"])
    assert changed_data(out, now()) == ["folder a has 8 pictures and had 6"]
    for name in ("6", "7"): (root/f"a/{name}.png").unlink()
    (root/"a/5.png").rename(root/"a/9.png")
    assert changed_data(out, now()) == ["folder a has 6 pictures and had 6, and not the same files"]
    (root/"a/9.png").rename(root/"a/5.png")
    (root/"c").rename(root/"b")
    with pytest.raises(ValueError, match=r"changed since the run at .*: folder c is gone \(6 pictures\); folder b is "
                                         r"new \(6 pictures\): choose another out, or say resume_changed"):
        check_data_unchanged(out, now())
    (out/"checkpoints/step-000002").rename(out/"kept")
    check_data_unchanged(out, now())                        # nothing to continue


def test_changed_captions_are_a_change(tmp_path):
    root = fill(tmp_path/"d", ["0.png", "1.png"])
    def now(text):
        rows = [{"file_name": f"{i}.png", "text": text} for i in (0, 1)]
        (root/"metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
        return load_data(str(root), size=4).understood
    write_record(tmp_path/"data.json", now("red"))
    assert changed_data(tmp_path, now("red")) == [] and changed_data(tmp_path, now("blue")) == ["captions are others"]
    for name in ("digits", "scenes"):
        write_record(tmp_path/"data.json", load_data(name).understood)
        assert changed_data(tmp_path, load_data(name).understood) == []
    assert changed_data(tmp_path, load_data("digits").understood)[0] == "kind was scenes and is digits"


def test_what_data_were_understood_as_in_words(tmp_path):
    root = fill(tmp_path/"d", [f"w/{c}/{i:02d}.png" for c in range(12) for i in range(20)])
    (root/"w/3/notes.md").touch()
    said = describe_data(load_data(str(root), size=4)).split("\n")
    assert said[0].endswith("d/w: 228 pictures, 12 classes: 0 = 0 (19), 1 = 1 (19), 2 = 2 (19), 3 = 3 (19), "
                            "4 = 4 (19), 5 = 5 (19), 6 = 6 (19), 7 = 7 (19), …, 10 = 10 (19), 11 = 11 (19)")
    assert said[1:] == ["held out: every 20th picture", "left out: .md (1)"]
    assert describe_data(load_data("digits")).startswith("digits: 1,442 pictures, 10 classes: 0 = 0, 1 = 1")
    assert describe_data(load_data("scenes")) == "scenes: 50,000 pictures, captions"
    json.dumps(load_data(str(root), size=4).understood)


def test_refused_captions_are_passed_over_by_name(tmp_path):
    data = Folder(fill(tmp_path, ["0.png", "1.png", "2.png"], caption="number {}"), size=4)
    data.refused = {"number 1": "an unknown word"}
    assert labels(data) == {"0.png": "number 0", "2.png": "number 2"}
    assert data[1].skipped == (("1.png", "an unknown word"),)


def test_names_of_any_bytes_are_understood(tmp_path):
    "A name that is not UTF-8 can be listed, described, recorded and refused."
    root = fill(tmp_path/"d", ["a/0.png", "b/0.png"])
    os.rename(os.fsencode(root/"a"), os.fsencode(root) + b"/\xff")
    data = load_data(str(root), size=4)
    assert data.names == ["b", "\udcff"] and "\udcff" in describe_data(data)
    write_record(tmp_path/"data.json", data.understood)
    check_data_unchanged(tmp_path, data.understood)
    fill(root, ["c/0.png"])
    assert changed_data(tmp_path, load_data(str(root), size=4).understood) == ["folder c is new (1 pictures)"]


def test_pictures_of_the_same_names_are_told_from_others(tmp_path):
    "Classes whose pictures changed places, and a picture that was replaced."
    root = fill(tmp_path/"d", ["cat/0.png", "dog/0.png"])
    Image.new("RGB", (9, 9), "red").save(root/"dog/0.png")
    run = tmp_path/"run"
    (run/"checkpoints/step-000001").mkdir(parents=True)
    write_record(run/"data.json", load_data(str(root), "train", 4).understood)
    check_data_unchanged(run, load_data(f"{root}/", "train", 4).understood)
    for old, new in [("cat", "x"), ("dog", "cat"), ("x", "dog")]: (root/old).rename(root/new)
    with pytest.raises(ValueError, match="folder cat has 1 pictures and had 1, and not the same files; folder dog has"):
        check_data_unchanged(run, load_data(str(root), "train", 4).understood)
