"Data by name: the table of data sets, what is refused, and classes by name."

import hashlib
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from files import fill
from pixnerd.data import DATASETS, DataSource, check_data, check_source, class_ids, load_data
from pixnerd.digits import load_digits
from pixnerd.model import PRESETS
from pixnerd.scenes import Scenes


@pytest.mark.parametrize("name, message", [
    ("scene",
     "one of digits, scenes, .* a folder, hub:OWNER/NAME or stream:OWNER/NAME, got 'scene': did you mean scenes?"),
    ("CIFAR-10", "got 'CIFAR-10': did you mean cifar10?"),
    ("no/such/folder", "got 'no/such/folder': there is no such folder"), ("hub:", "got 'hub:'"),
    ("zebra", "got 'zebra'$")])
def test_unknown_names(name, message):
    for refuse in (check_data, load_data):
        with pytest.raises(ValueError, match=message.replace("?", r"\?")): refuse(name)


def test_names_and_sizes(tmp_path):
    assert len(load_data(str(fill(tmp_path, ["a/1.png"])), size=8)) == 1
    assert isinstance(load_data("scenes", "held-out", 16), Scenes)
    with pytest.raises(ValueError, match="size must be a whole number of pixels, at least 1, got 0"):
        load_data("scenes", size=0)
    with pytest.raises(ValueError, match="size must be a multiple of 8, got 30"): load_data("digits", size=30)


def test_cifar_from_its_own_files(tmp_path, monkeypatch):
    "Small files in CIFAR-10's format, with their own checksums: torchvision does the rest."
    CIFAR10 = pytest.importorskip("torchvision.datasets", reason="torchvision is not installed").CIFAR10
    monkeypatch.setenv("PIXNERD_DATA", str(tmp_path))
    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")       # nobody listens there
    with pytest.raises(ValueError, match="cannot be downloaded into .*put cifar-10-python.tar.gz there by hand"):
        load_data("cifar10")
    (folder := tmp_path/"cifar-10-batches-py").mkdir()
    rng = np.random.default_rng(0)
    def write(name, content):
        (folder/name).write_bytes(pickle.dumps(content))
        return [name, hashlib.md5((folder/name).read_bytes()).hexdigest()]
    def some(n): return {"data": rng.integers(0, 256, (n, 3072), dtype=np.uint8), "labels": [i % 10 for i in range(n)]}
    made = some(20)
    monkeypatch.setattr(CIFAR10, "train_list", [write("data_batch_1", made), write("data_batch_2", some(10))])
    monkeypatch.setattr(CIFAR10, "test_list", [write("test_batch", some(10))])
    name, md5 = write("batches.meta",
                      {"label_names": "airplane automobile bird cat deer dog frog horse ship truck".split()})
    monkeypatch.setattr(CIFAR10, "meta", {"filename": name, "key": "label_names", "md5": md5})
    train, held = load_data("cifar10", "train", 32), load_data("cifar10", "held-out", 48)
    assert (len(train), len(held), train.names[3], train[13].label) == (30, 10, "cat", 3)
    assert torch.equal(train[7].image, torch.from_numpy(made["data"][7].reshape(3, 32, 32)))
    assert held[0].image.shape == (3, 48, 48)


@pytest.mark.parametrize("name", ["digits", "scenes"])
def test_data_sets_are_what_their_records_say(name): check_source(name)


@pytest.mark.parametrize("field", ["load", "about", "names", "channels", "size", "preset"])
def test_an_incomplete_record_is_refused_by_name(field):
    complete = dict(load=load_digits, about="digits", names=("0",), channels=1, size=32, preset="digits")
    with pytest.raises(ValueError, match=f"data set 'mine' is incomplete: it lacks {field}"):
        DATASETS["mine"] = DataSource(**complete | {field: None})
    assert "mine" not in DATASETS
    with pytest.raises(ValueError, match="data set 'mine' must be"): DATASETS["mine"] = load_digits
    with pytest.raises(ValueError, match="preset must be one of digits, scenes"):
        DataSource(**complete | {"preset": "digit"})


@pytest.mark.parametrize("wrong, says", [
    (dict(channels=3), "'mine', train: channels should be 3, got 1"), (dict(names=("zero",)), "names should be"),
    (dict(names=()), "names should be"), (dict(size=40), None)])
def test_a_record_is_held_to_what_is_loaded(monkeypatch, wrong, says):
    right = dict(load=load_digits, about="digits", names=tuple("0123456789"), channels=1, size=32, preset="digits")
    monkeypatch.setitem(DATASETS, "mine", DataSource(**right | wrong))
    if says is None: check_source("mine")                   # digits are drawn at any multiple of 8
    else:
        with pytest.raises(ValueError, match=says): check_source("mine")


def test_every_record_names_a_preset_and_is_a_choice():
    assert {"digits", "scenes", "cifar10"} <= set(DATASETS)
    for name, source in DATASETS.items():
        assert source.preset in PRESETS
        check_data(name)


PETS = ("ant", "cat", "dog", "T-shirt")


@pytest.mark.parametrize("wanted, names, ids", [
    ("cat", PETS, [1]), ("CAT, 3 ,0-2", PETS, [1, 3, 0, 1, 2]), ("t-shirt,dog", PETS, [3, 2]),
    (["Dog", 0, "1"], PETS, [2, 0, 1]),
    ("7", [str(i) for i in range(1, 13)], [6]), ("10-12", [str(i) for i in range(1, 13)], [9, 10, 11]),
    ("7", [f"{i:02d}" for i in range(12)], [7]), ("1", ("1st", "01", "a"), [1]), ("3-3", PETS, [3]),
    ("2,,1,", PETS, [2, 1]), ("lead, trail ", (" lead", "trail "), [0, 1]), ("cat", ("CAT", "cat"), [1]),
    ("with, comma", ("with, comma", "with"), [0]), ('with, "with, comma"', ("with, comma", "with"), [1, 0]),
    ("2", ("2", "10", "other"), [0]), ("1-3", ("1", "10", "2", "3"), [0, 2, 3]), ("07", ("7", "07"), [1])])
def test_classes_by_name_and_number(wanted, names, ids): assert class_ids(wanted, names=names) == ids


@pytest.mark.parametrize("wanted, says", [
    ("catt", "unknown class 'catt': did you mean cat"), ("4", "unknown class '4': must be a name or an id from 0 to 3"),
    ("-1", "unknown class '-1'"), ("2-1", "classes must go upwards in a range, got '2-1'"),
    ("0-9", "unknown class '9'"),
    ("", "classes must name at least one class"), ([], "classes must name at least one class"),
    ("1.0", "unknown class '1.0'"), ("catt", "cat, ant, or its id 1 or 0"),
    ("-1", "must be a name or an id from 0 to 3")])
def test_unknown_classes(wanted, says):
    with pytest.raises(ValueError, match=says): class_ids(wanted, names=PETS)


@pytest.mark.parametrize("wanted, names, says", [
    ("cat", ("Cat", "CAT", "dog"), "class 'cat' may be Cat or CAT: give one exactly, or its id 0 or 1"),
    ("1", ("2", "10", "other"), "one of 2, 10, other .ids are not taken, as 2 is the name of class 0"),
    ("1-10", ("1", "10", "2", "3", "5"), "classes 1-10: no class is called 4, 6, 7, 8 …"),
    ("2-4", ("1", "10", "2", "3", "5"), "unknown class '4'"),
    ("with", ("with, comma",), 'mean "with, comma", or its id 0'),
    ("-1", ("1e3", "0x1", "1-2"), "must be a name or an id from 0 to 2")])
def test_classes_that_could_be_several_are_refused(wanted, names, says):
    with pytest.raises(ValueError, match=says): class_ids(wanted, names=names)


def test_classes_without_names():
    assert class_ids("0-3, 9", 10) == [0, 1, 2, 3, 9]
    for wanted in ("10", "cat"):
        with pytest.raises(ValueError, match=f"unknown class '{wanted}': must be an id from 0 to 9"):
            class_ids(wanted, 10)
    with pytest.raises(ValueError, match="unknown class '0': must be one of 1, 2, 3"):
        class_ids("0", names=("1", "2", "3"))


def test_classes_of_imagenet():
    pytest.importorskip("torchvision", reason="torchvision is not installed, and it has the names")
    assert class_ids(["tabby", "Golden Retriever", 3, "7"]) == [281, 207, 3, 7] and class_ids("999") == [999]
    for bad in ("tabbi", "goldn retriever", 1000, "-1", ""):
        with pytest.raises(ValueError, match="class"): class_ids([bad])


@given(st.lists(st.integers(0, 30), min_size=1), st.integers(31, 60))
def test_ids_written_out_are_read_back(ids, count):
    assert class_ids(",".join(map(str, ids)), count) == class_ids(ids, count) == ids
