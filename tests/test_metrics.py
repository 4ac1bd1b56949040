"Metrics: torch-fidelity against independent arithmetic, files that others write, records by name, and bad input."

import json
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pixnerd import cli, metrics as m
from pixnerd.checkpoints import from_pretrained
from pixnerd.data import load_data
from pixnerd.digits import load_digits
from pixnerd.image_sources import ImageSource, _as_bytes, _find_files, open_images
from pixnerd.images import crop_square
from pixnerd.patches import to_signed, to_uint8
from pixnerd.records import fingerprint
from pixnerd.sample_folders import draw_batch, write_image, write_npz
from pixnerd.samplers import SamplerSettings

pytest.importorskip("torch_fidelity", reason="torch-fidelity is not installed (pip install -e '.[evaluate]')")
ROOT = Path(__file__).resolve().parent.parent


def evaluate(*arguments) -> None:
    "`pixnerd-evaluate` in this process."
    cli.evaluate_main(list(map(str, arguments)))


def write_folder(folder: Path, images) -> Path:
    folder.mkdir(parents=True)
    for i, image in enumerate(images): write_image(folder/f"{i:04d}.png", image)
    return folder


@pytest.fixture(scope="module")
def extractor(): return m.make_extractor(m.MetricConfig(extractor="digits"))


@pytest.fixture(scope="module")
def pair() -> tuple[ImageSource, ImageSource]:
    "Held-out digits with some blur, and training digits."
    held, train = load_digits("held-out").images[:300], load_digits("train").images[:400]
    return open_images(torch.nn.functional.avg_pool2d(held, 7, 1, 3)), open_images(train)


# What the numbers are

def sqrtm(s):
    values, axes = np.linalg.eigh(s)
    return (axes * np.sqrt(values.clip(0))) @ axes.T


def frechet(a, b):
    "The Fréchet distance by symmetric eigenvalues, in float64."
    s, r = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    between = np.sqrt(np.linalg.eigvalsh(sqrtm(s) @ r @ sqrtm(s)).clip(0)).sum()
    return ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(s) + np.trace(r) - 2 * between


def kid(a, b):
    "The unbiased squared kernel distance, pair by pair, in float64."
    def k(x, y): return (x @ y / len(x) + 1) ** 3
    def inside(c): return np.mean([k(c[i], c[j]) for i in range(len(c)) for j in range(len(c)) if i != j])
    return inside(a) + inside(b) - 2 * np.mean([k(x, y) for x in a for y in b])


def within(points, cover, neighbour):
    "The share of points in balls around others, each as wide as to its k-th neighbour."
    def distance(x, y): return np.sqrt(((x[:, None] - y[None]) ** 2).sum(-1))
    return (distance(points, cover) <= np.sort(distance(cover, cover), 1)[:, neighbour]).any(1).mean()


def test_numbers_equal_independent_arithmetic(pair, extractor):
    c = m.MetricConfig("fid,isc,prc", "digits", isc_splits=1, neighbourhood=5)
    found = m.measure(*pair, c, extractor)
    a, b = (m.extract(p, extractor) for p in pair)
    x, y, p = a["features"].numpy(), b["features"].numpy(), torch.softmax(a["logits"], 1).numpy()
    assert found["fid-digits"] == pytest.approx(frechet(x, y), rel=1e-6)
    assert found["isc-digits"] == pytest.approx(np.exp((p * np.log(p / p.mean(0))).sum(1).mean()), rel=1e-6)
    assert found["precision-digits"] == pytest.approx(within(x, y, 5), abs=1e-6)
    assert found["recall-digits"] == pytest.approx(within(y, x, 5), abs=1e-6)
    c = m.MetricConfig(kid_subset_size=60, kid_subsets=3)
    few = m.score("kid", a["features"][:60], b["features"][:60], c)
    assert few["kid"] == pytest.approx(kid(x[:60], y[:60]), rel=1e-6) and few["kid_spread"] < 1e-9


def test_the_library_called_whole_gives_the_same(pair, extractor):
    c = m.MetricConfig(extractor="digits", kid_subset_size=150, kid_subsets=20)
    ours = m.measure(*pair, c, extractor)
    theirs = m._import_fidelity().calculate_metrics(
        input1=pair[0], input2=pair[1], cuda=False, cache=False, verbose=False, save_cpu_ram=True,
        feature_extractor="digits", fid=True, kid=True, isc=True, prc=True, kid_subset_size=150, kid_subsets=20)
    names = {"fid": "frechet_inception_distance", "kid": "kernel_inception_distance_mean",
             "kid_spread": "kernel_inception_distance_std", "isc": "inception_score_mean",
             "precision": "precision", "recall": "recall"}
    for name, key in names.items(): assert ours[f"{name}-digits"] == pytest.approx(theirs[key], rel=1e-4), name


@given(st.integers(0, 2 ** 32 - 1), st.integers(2, 6), st.floats(.1, 10))
@settings(max_examples=25, deadline=None)
def test_fid_is_symmetric_blind_to_rotation_and_feels_a_shift(seed, width, far):
    g = torch.Generator().manual_seed(seed)
    a, b = torch.randn(50, width, generator=g).double(), torch.randn(60, width, generator=g).double() * 2
    turn, _ = torch.linalg.qr(torch.randn(width, width, generator=g).double())
    def fid(x, y): return m.score("fid", x, y)["fid"]
    assert fid(a, b) == pytest.approx(fid(b, a), rel=1e-6) == pytest.approx(fid(a @ turn, b @ turn), rel=1e-6)
    assert fid(a, a + far) == pytest.approx(width * far ** 2, rel=1e-5)


def test_halves_are_near_noise_is_far_and_a_ladder_rises(extractor):
    train = load_digits("train").images
    one, two = train[torch.randperm(len(train), generator=torch.Generator().manual_seed(1))].chunk(2)
    c = m.MetricConfig("fid,kid", "digits", kid_subset_size=700, kid_subsets=1)
    noise = torch.randn(one.shape, generator=torch.Generator().manual_seed(0))
    ladder = [m.measure(one + s * noise, two, c, extractor) for s in (0, .1, .2, .4, .8)]
    assert ladder[0]["fid-digits"] < .5                     # the bias at 700 images: see the notebook
    assert abs(ladder[0]["kid-digits"]) < .02
    for name in ("fid-digits", "kid-digits"): assert [n[name] for n in ladder] == sorted(n[name] for n in ladder)
    assert m.measure(noise, two, c, extractor)["fid-digits"] > 20 > 20 * ladder[0]["fid-digits"]


def test_inception_reads_grey_and_colour_as_the_library_does(tmp_path):
    "The real network with weights of no use: what is checked is the way of the images to it."
    from torch_fidelity import FeatureExtractorInceptionV3, calculate_metrics
    class Untrained(FeatureExtractorInceptionV3):
        def load_state_dict(self, *arguments, **options): pass
    torch.save({}, tmp_path/"none.pth")
    torch.manual_seed(0)
    torch.save(Untrained("untrained", ["2048"], str(tmp_path/"none.pth")).state_dict(), tmp_path/"weights.pth")
    g, drawn = torch.Generator().manual_seed(0), {}
    for name, channels in (("grey", 1), ("colour", 3)):
        crowds = [torch.randn(5, channels, 24, 24, generator=g) / (2 + i) for i in range(2)]
        drawn[name] = [write_folder(tmp_path/f"{name}{i}", crowd) for i, crowd in enumerate(crowds)]
    few = dict(kid_subset_size=5, kid_subsets=1, isc_splits=2)
    c = m.MetricConfig("kid,isc,prc", weights=str(tmp_path/"weights.pth"), **few)
    inception = m.make_extractor(c)
    for ours, theirs in drawn.values():
        found = m.measure(ours, theirs, c, inception)
        same = calculate_metrics(input1=str(ours), input2=str(theirs), cuda=False, cache=False, verbose=False,
                                 save_cpu_ram=True, kid=True, isc=True, **few, feature_extractor_weights_path=c.weights)
        assert set(found) == {"kid", "kid_spread", "isc", "isc_spread", "precision", "recall"}
        assert found["kid"] == pytest.approx(same["kernel_inception_distance_mean"], rel=1e-3, abs=1e-6)
        assert found["isc"] == pytest.approx(same["inception_score_mean"], rel=1e-4)


# Records by name

def complete(**changes) -> m.Metric:
    "A metric of two lines, with some fields changed."
    def nearest(samples, real, config): return {"nearest": torch.cdist(samples, real).amin(1).mean().item()}
    return m.Metric(**dict(about="distance to the nearest real image", compute=nearest, needs="images",
                           layer="features", better="down", least=1) | changes)


@pytest.mark.parametrize("lacks", ["about", "compute", "needs", "layer", "better", "least"])
def test_an_incomplete_metric_is_refused_by_name_where_it_is_entered(lacks):
    with pytest.raises(ValueError, match=f"metric 'nearest' is incomplete: it lacks {lacks}"):
        m.METRICS["nearest"] = complete(**{lacks: None})
    assert "nearest" not in m.METRICS


@pytest.mark.parametrize("field", ["needs", "layer", "better"])
def test_a_record_says_what_it_may(field):
    with pytest.raises(ValueError, match=f"a metric's {field} must be one of .*, got 'all'"): complete(**{field: "all"})


def test_a_metric_that_is_entered_is_checked_measured_and_compared(monkeypatch, tmp_path):
    monkeypatch.setitem(m.METRICS, "nearest", complete(least=2, setting="neighbourhood"))
    c, held = m.MetricConfig("fid,nearest", "digits"), load_digits("held-out").images[:40]
    found = m.measure(held, held, c)
    assert abs(found["nearest-digits"]) < 1e-6 and set(found) == {"fid-digits", "nearest-digits"}
    with pytest.raises(ValueError, match=r"nearest needs at least 5 samples \(neighbourhood\), got 4"):
        m.measure(held[:4], held, c)
    m.Statistics("s", np.zeros(64), np.eye(64)).save(tmp_path/"s.npz")
    with pytest.raises(ValueError, match="nearest needs real images, and .* holds statistics"):
        m.measure(held, tmp_path/"s.npz", c)
    (tmp_path/"a.json").write_text(json.dumps({"metrics": found}))
    assert "| nearest-digits ↓ |" in m.compare_results([tmp_path/"a.json"])
    with pytest.raises(ValueError, match="metric must be one of fid, .*nearest, got 'nearer'"):
        m.MetricConfig("nearer")


# Files

def test_folder_npz_and_statistics_give_one_answer(tmp_path, extractor):
    held, train = load_digits("held-out").images[:120], load_digits("train").images
    c = m.MetricConfig("fid,kid,prc", "digits", kid_subset_size=100)
    folder = write_folder(tmp_path/"folder", held)
    write_npz(tmp_path/"held.npz", _find_files(folder))
    features = m.extract(open_images(train), extractor)["features"]
    m.Statistics.of(features, "train", "digits").save(tmp_path/"train.npz")
    answer = m.measure(held, train, c, extractor)
    assert m.measure(folder, train, c, extractor) == answer
    assert m.measure(tmp_path/"held.npz", "digits", c, extractor) == answer
    fid = m.MetricConfig("fid", "digits")
    assert m.measure(folder, tmp_path/"train.npz", fid, extractor)["fid-digits"] == answer["fid-digits"]
    kept = m.Statistics.open(tmp_path/"train.npz")          # of other hands: no extractor, another precision
    np.savez(tmp_path/"foreign.npz", mu=kept.mu.astype(np.float32), sigma=kept.sigma)
    foreign = m.measure(folder, tmp_path/"foreign.npz", fid, extractor)
    assert foreign["fid-digits"] == pytest.approx(answer["fid-digits"], rel=1e-4)
    pixels = to_uint8(train).permute(0, 2, 3, 1).numpy()    # as ADM's: statistics of more images than it holds
    np.savez(tmp_path/"both.npz", mu=kept.mu + 1, sigma=kept.sigma, arr_0=pixels)
    both = m.measure(folder, tmp_path/"both.npz", c, extractor)
    assert both["kid-digits"] == answer["kid-digits"] and both["fid-digits"] != answer["fid-digits"]


@given(st.integers(0, 2 ** 32 - 1), st.sampled_from([1, 3]), st.integers(1, 9), st.integers(1, 9))
@settings(max_examples=15, deadline=None)
def test_images_come_back_to_the_byte(tmp_path_factory, seed, channels, height, width):
    folder, g = tmp_path_factory.mktemp("bytes"), torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (3, channels, height, width), generator=g, dtype=torch.uint8)
    files = [folder/f"{i}.png" for i in range(3)]
    for f, p in zip(files, pixels): write_image(f, to_signed(p))
    write_npz(folder/"all.npz", files, [2, 1, 0])
    for source in (folder, folder/"all.npz"): assert torch.equal(torch.stack(list(open_images(source))), pixels)
    with np.load(folder/"all.npz") as packed:
        assert packed["arr_0"].shape == (3, height, width, channels) and packed["arr_1"].tolist() == [2, 1, 0]


def test_a_reference_of_mixed_sizes_is_cropped_when_asked(tmp_path):
    folder, g = tmp_path/"photos", torch.Generator().manual_seed(0)
    write_folder(folder/"n01", torch.rand(3, 3, 70, 50, generator=g) * 2 - 1)
    write_folder(folder/"n02", torch.rand(2, 1, 32, 80, generator=g) * 2 - 1)
    with pytest.raises(ValueError, match="must be of one size, got 50x70 .* and 80x32"): m.open_reference(folder)
    crowd = m.open_reference(folder, size=32, crop=True).pictures
    assert crowd.shape == (3, 32, 32) and len(crowd) == 5
    wanted = crop_square(Image.open(folder/"n01"/"0001.png").convert("RGB"), 32)
    assert np.array_equal(crowd[1].permute(1, 2, 0).numpy(), np.array(wanted))
    assert torch.equal(crowd[4][0], crowd[4][2])


def test_a_photograph_that_lies_on_its_side_is_measured_upright(tmp_path):
    lying, note = Image.fromarray(np.arange(32, dtype=np.uint8).reshape(4, 8)), Image.Exif()
    note[0x0112] = 6                                        # turn right
    lying.save(tmp_path/"a.png", exif=note)
    lying.rotate(-90, expand=True).save(tmp_path/"b.png")
    crowd = open_images(tmp_path)
    assert crowd.shape == (1, 8, 4) and torch.equal(crowd[0], crowd[1])


@pytest.mark.parametrize("mode", ["L", "1", "LA", "I;16"])
def test_grey_pictures_stay_grey_in_whatever_way_they_are_kept(tmp_path, mode):
    for i in range(12):
        grey = np.random.default_rng(i).integers(0, 256, (32, 32), dtype=np.uint8)
        picture = Image.fromarray(grey.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(grey).convert(mode)
        for name, kept in ("grey", Image.fromarray(grey).convert("1" if mode == "1" else "L")), ("other", picture):
            (tmp_path/name).mkdir(exist_ok=True)
            kept.save(tmp_path/name/f"{i:02d}.png")
    grey, other = (open_images(tmp_path/name) for name in ("grey", "other"))
    assert grey.shape == other.shape == (1, 32, 32)
    for a, b in zip(grey, other): assert torch.equal(a, b)
    assert m.measure(grey, other, m.MetricConfig("fid", "digits"))["fid-digits"] == pytest.approx(0, abs=1e-6)


def test_a_grey_reference_is_read_as_coloured_for_coloured_samples_only(tmp_path):
    class Colour(torch.nn.Module):
        channels, layers, features_list = 3, {"features": "mean"}, ["mean"]
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))
        def forward(self, images): return (images.double().mean((2, 3)) * self.weight,)
    grey = torch.rand(9, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    folder, c = write_folder(tmp_path/"grey", grey), m.MetricConfig("fid")
    assert m.measure(grey.expand(-1, 3, -1, -1), folder, c, Colour())["fid"] == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="must have one shape"):
        m.measure(grey, grey.expand(-1, 3, -1, -1), c, Colour())


def test_an_array_alone_is_measured_like_an_archive(tmp_path):
    pixels = to_uint8(load_digits("held-out").images[:20]).permute(0, 2, 3, 1).numpy()
    np.save(tmp_path/"s.npy", pixels)
    np.savez(tmp_path/"s.npz", arr_0=pixels)
    one, other = (open_images(tmp_path/name) for name in ("s.npy", "s.npz"))
    assert one.shape == other.shape and all(torch.equal(a, b) for a, b in zip(one, other))
    assert m.open_reference(tmp_path/"s.npy").statistics is None
    evaluate("--samples", tmp_path/"s.npy", *REFERENCE.split(), "--metrics", "fid", "--out", tmp_path/"o")
    assert json.loads((tmp_path/"o"/"metrics.json").read_text())["samples"]["count"] == 20


@pytest.mark.parametrize("text", ["[1, 2]", "{", '{"theme": "dark"}', "\xff"])
def test_settings_of_another_tool_beside_pictures_are_passed_over(tmp_path, text):
    folder = write_folder(tmp_path/"a", torch.zeros(3, 1, 8, 8))
    (folder/"settings.json").write_bytes(text.encode("latin-1"))
    assert len(m.open_reference(folder).pictures) == 3
    (folder/"settings.json").write_text('{"pixnerd": "0.1.0"}')             # but of ours, that was not completed
    with pytest.raises(ValueError, match="are not complete"): m.open_reference(folder)


def test_one_damaged_file_among_thousands_is_named_in_one_line(tmp_path, extractor):
    folder = write_folder(tmp_path/"many", torch.zeros(1, 1, 32, 32))
    whole = (folder/"0000.png").read_bytes()
    for i in range(5001): (folder/f"{i:04d}.png").write_bytes(whole[:len(whole) // 2] if i == 4000 else whole)
    with pytest.raises(ValueError, match=r"^\S+4000.png is damaged, or no image: .*$") as told:
        m.extract(open_images(folder), extractor)
    assert "\n" not in str(told.value)


def test_a_folder_with_splits_is_measured_by_one_of_them(tmp_path):
    images = torch.zeros(2, 1, 32, 32)
    for part in ("train/a", "train/b", "val/a"): write_folder(tmp_path/"d"/part, images)
    with pytest.warns(UserWarning, match="has splits: train/ is taken, its train images"): assert len(open_images(tmp_path/"d")) == 4
    with pytest.warns(UserWarning, match="has splits: val/ is taken"): held = open_images(tmp_path/"d", "held-out")
    assert len(held) == 2 and m.class_counts(held) == {"a": 2}


def test_what_is_no_collection_of_images_is_told_so(tmp_path):
    write_image(tmp_path/"0.png", torch.zeros(1, 8, 8))
    with pytest.raises(ValueError, match="images must be a folder, an .npz or an .npy, got one picture: .*0.png"): open_images(tmp_path/"0.png")
    np.save(tmp_path/"objects.npy", np.array([{}, {}]), allow_pickle=True)
    with pytest.raises(ValueError, match="objects.npy holds Python objects, which are never loaded"): open_images(tmp_path/"objects.npy")


def test_classes_are_counted_and_an_uneven_crowd_is_told(tmp_path):
    held = load_digits("held-out")
    c, threes = m.MetricConfig("fid", "digits"), held.images[held.labels == 3][:30]
    for i, image in enumerate(threes):
        for name in ("drawn", "sorted/3"): (tmp_path/name).mkdir(parents=True, exist_ok=True)
        write_image(tmp_path/"drawn"/f"{i:06d}-class3.png", image)
        write_image(tmp_path/"sorted"/"3"/f"{i}.png", image)
    write_npz(tmp_path/"threes.npz", _find_files(tmp_path/"drawn"), [3] * 30)
    for name in ("drawn", "sorted", "threes.npz"):
        assert m.class_counts(open_images(tmp_path/name)) == {"3": 30}
        with pytest.warns(UserWarning, match="30 of 3 against 14. of .* and 7 classes more") as told:
            m.measure(tmp_path/name, "digits", c)
        assert len(told) == 1 and "\n" not in str(told[0].message)
    assert m.class_counts(open_images(threes)) == {} and len(m.class_counts(open_images("digits"))) == 10


@given(st.integers(2, 40), st.integers(1, 30), st.integers(0, 2 ** 32 - 1))
@settings(max_examples=40, deadline=None)
def test_chance_alone_is_not_told(classes, each, seed):
    def crowd(labels):
        data = replace(load_digits("held-out"), images=labels, labels=labels, names=[str(i) for i in range(classes)])
        return ImageSource("d", (1, 32, 32), data, None)
    even = torch.arange(classes * 50) % classes
    drawn = torch.randint(classes, (classes * each,), generator=torch.Generator().manual_seed(seed))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        m._compare_classes(crowd(drawn), m.Reference(crowd(even)))


def test_an_unreadable_image_of_a_data_set_is_no_other_image(tmp_path):
    write_folder(tmp_path/"a", torch.zeros(3, 1, 8, 8))
    (tmp_path/"a"/"0001.png").write_text("no image")
    crowd = ImageSource("a", (3, 8, 8), load_data(str(tmp_path/"a"), "train", 8), _as_bytes)
    with pytest.raises(ValueError, match="0001.png cannot be read: not a picture"):
        list(torch.utils.data.DataLoader(crowd))


# From a checkpoint to the numbers

def test_a_checkpoint_becomes_numbers_and_two_become_a_table(tmp_path, capsys):
    digits = ["--reference", "digits", "--extractor", "digits"]
    small = [*digits, "--kid-subset-size", 20, "--isc-splits", 2, "--steps", 3]
    a, b, c, train = (tmp_path/name for name in ("a", "b", "c", "train.npz"))
    def read(out): return json.loads((out/"metrics.json").read_text())
    evaluate("--model", "digits", "--total", 40, *small, "--out", a, "--save-statistics", train)
    evaluate("--samples", a/"samples", *small, "--out", b)
    first, drawn = read(a), read(a)["samples"]["drawn_by"]
    assert first["metrics"] == read(b)["metrics"]
    numbers = {name.removesuffix("-digits") for name in first["metrics"]}
    assert {"fid", "kid", "kid_spread", "isc", "precision", "recall"} <= numbers
    assert drawn["seed"] == 0 and drawn["sampler"]["steps"] == 3 and len(drawn["weights"]) == 64
    assert first["samples"]["count"] == 40 and first["reference"]["count"] == len(load_digits("train"))
    assert {"pixnerd", "torch", "torch_fidelity", "cpu", "commit"} <= first["made_by"].keys()
    evaluate("--samples", a/"samples", "--reference", train, "--metrics", "fid", "--extractor", "digits", "--out", c)
    assert read(c)["metrics"]["fid-digits"] == first["metrics"]["fid-digits"]
    assert (first["reference"]["fid_from"], read(c)["reference"]["fid_from"]) == ("images", "statistics")
    evaluate(*digits, "--split", "held-out", "--save-statistics", tmp_path/"held.npz")
    assert m.Statistics.open(tmp_path/"held.npz").count == len(load_digits("held-out"))
    capsys.readouterr()
    evaluate("--compare", a/"metrics.json", c/"metrics.json")
    table = capsys.readouterr().out.splitlines()
    assert table[0].split("|")[2].strip() == "a" and any(line.startswith("| fid-digits") for line in table)
    assert any("settings.metrics" in line for line in table)
    assert not any("settings.extractor" in line for line in table), "what is equal is left out"
    with pytest.raises(ValueError, match="already exists"): evaluate("--samples", a/"samples", *small, "--out", b)


# Bad input

@pytest.fixture(scope="module")
def room(tmp_path_factory) -> Path:
    "Sources with something wrong."
    room, held = tmp_path_factory.mktemp("room"), load_digits("held-out").images
    crowds = {"good": held[:12], "mixed": held[:3], "cut": held[:3], "colour": held[:12].expand(-1, 3, -1, -1)}
    for name, images in crowds.items(): write_folder(room/name, images)
    write_image(room/"mixed"/"z.png", held[0, :, :16])
    (room/"cut"/"0001.png").write_bytes((room/"cut"/"0000.png").read_bytes()[:20])
    (room/"empty").mkdir()
    (room/"text").mkdir()
    write_npz(room/"good.npz", _find_files(room/"good"))
    whole = (room/"good.npz").read_bytes()
    (room/"cut.npz").write_bytes(whole[:-400])
    (room/"flipped.npz").write_bytes(whole[:3000] + bytes([whole[3000] ^ 255]) + whole[3001:])
    texts = {"text/a.png": "no image", "note.npz": "no archive", "words.json": "{}", "half.json": '{"metrics"',
             "labels.txt": "3\n12\n"}
    for name, text in texts.items(): (room/name).write_text(text)
    np.savez(room/"float.npz", arr_0=np.zeros((3, 8, 8, 3)))
    np.savez(room/"other.npz", pictures=np.zeros(3))
    np.savez(room/"object.npz", arr_0=np.array([{}], dtype=object))
    np.savez(room/"inception.npz", mu=np.zeros(2048), sigma=np.eye(2048, dtype=np.float32))
    np.savez(room/"badmu.npz", mu=np.zeros(3), sigma=np.eye(4))
    m.Statistics("x", np.zeros(64), np.eye(64), "vgg16", 10).save(room/"vgg.npz")
    torch.save({"a": print}, room/"code.pth")
    return room


REFERENCE = "--reference digits --extractor digits"
GOOD = "--samples good --extractor digits"


@pytest.mark.parametrize("command, message", [
    (f"--samples empty {REFERENCE}", "empty' holds no images: 0 files (it is empty)"),
    (f"--samples mixed {REFERENCE}", "must be of one size, got 32x32 (0000.png) and 32x16 (z.png)"),
    (f"--samples text {REFERENCE}", "a.png is damaged, or no image"),
    (f"--samples cut {REFERENCE} --metrics fid", "0001.png is damaged, or no image"),
    (f"--samples none.npz {REFERENCE}", "no file none.npz"),
    (f"--samples cut.npz {REFERENCE}", "cut.npz is damaged, or no .npz file"),
    (f"--samples flipped.npz {REFERENCE}", "flipped.npz is damaged"),
    (f"--samples note.npz {REFERENCE}", "note.npz is damaged"),
    (f"--samples float.npz {REFERENCE}", "must be uint8 images (N, H, W, 1 or 3), got float64 (3, 8, 8, 3)"),
    (f"--samples other.npz {REFERENCE}", "holds no array arr_0"),
    (f"--samples object.npz {REFERENCE}", "object.npz holds Python objects"),
    (f"--samples nowhere/at/all {REFERENCE}", "got 'nowhere/at/all': there is no such folder"),
    (f"--samples mnist {REFERENCE}", "data must be one of digits"),
    (f"--samples colour {REFERENCE} --metrics fid", "reads images of 1 channel, got 3"),
    (f"{GOOD} --reference colour --metrics fid", "must have one shape"),
    (f"{GOOD} --reference digits --metrics kid", "kid needs at least 1000 samples (kid_subset_size), got 12"),
    (f"{GOOD} --reference digits --metrics prc --neighbourhood 12",
     "prc needs at least 13 samples (neighbourhood), got 12"),
    (f"{GOOD} --reference digits --metrics isc --isc-splits 13", "isc needs at least 13 samples"),
    (f"{GOOD} --reference digits --metrics fid,sfid", "metric must be one of fid, kid, "),
    ("--samples good --reference digits --extractor resnet", "extractor must be one of clip-"),
    (f"{GOOD} --reference digits --weights code.pth", "weights can be given for inception-v3-compat and vgg16"),
    ("--samples good --reference digits --weights code.pth", "are damaged, or more than tensors"),
    ("--samples good --reference digits --weights none.pth", "no file none.pth"),
    (f"{GOOD} --metrics fid", "fid needs a reference"),
    (f"{GOOD} --metrics kid --kid-subset-size 5 --reference inception.npz",
     "kid needs real images, and inception.npz holds statistics"),
    (f"{GOOD} --metrics fid --reference inception.npz", "is of 2048 features, and extractor 'digits' has 64"),
    (f"{GOOD} --metrics fid --reference vgg.npz", "was made with extractor 'vgg16', got 'digits'"),
    (f"{GOOD} --metrics fid --reference badmu.npz", "must hold finite mu (D,) and sigma (D, D), got (3,) and (4, 4)"),
    (f"{GOOD} --reference digits --split test --metrics fid", "split must be one of train, held-out, got 'test'"),
    (f"{GOOD} --reference digits --model digits", "samples and model both say what to measure"),
    (REFERENCE, "nothing to measure: give samples or model"),
    (f"{GOOD} --reference digits --total 9", "total is for drawing from a model"),
    (f"--model digits --total 9 {REFERENCE}", "kid needs at least 1000 samples (kid_subset_size), got 9"),
    (f"--model digits --labels labels.txt {REFERENCE}",
     "labels labels.txt, entry 2: unknown class '12': must be an id from 0 to 9"),
    (f"{REFERENCE} --save-statistics vgg.npz", "vgg.npz already exists"),
    (f"{REFERENCE} --metrics kid --save-statistics new.npz", "save-statistics is for fid"),
    ("--extractor digits --reference vgg.npz --save-statistics new.npz", "save-statistics needs images"),
    ("--compare words.json", "words.json is no result of pixnerd-evaluate"),
    ("--compare half.json", "half.json is damaged"),
    ("--compare none.json", "none.json")])
def test_a_mistake_gets_one_line_and_changes_nothing(room, command, message, monkeypatch, capsys):
    before = {p: p.stat().st_mtime_ns for p in room.rglob("*")}
    monkeypatch.chdir(room)
    monkeypatch.setattr(sys, "argv", ["pixnerd-evaluate", *command.split()])
    with pytest.raises(SystemExit) as stopped: cli.evaluate_command()
    told = [line for line in capsys.readouterr().err.splitlines() if line and not line.startswith(("usage:", "     "))]
    assert stopped.value.code == 2 and len(told) == 1 and message in told[0], told
    assert {p: p.stat().st_mtime_ns for p in room.rglob("*")} == before


@pytest.mark.parametrize("extractor", ["inception-v3-compat", "clip-vit-b-32"])
def test_weights_that_cannot_be_downloaded_are_told_before_anything_is_drawn(tmp_path, extractor, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path/"torch"))
    told = (f"extractor '{extractor}' needs weights that are neither in .* nor can be downloaded .*"
            "the extractor digits needs none")
    with pytest.raises(ValueError, match=told):
        evaluate("--model", "digits", "--total", 20, "--reference", "digits", "--extractor", extractor,
                 "--metrics", "fid", "--out", tmp_path/"a")
    assert not (tmp_path/"a").exists()


def test_without_torch_fidelity_the_command_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    options = ["--model", "digits", *REFERENCE.split(), "--out", str(tmp_path/"a")]
    monkeypatch.setattr(sys, "argv", ["pixnerd-evaluate", *options])
    with pytest.raises(SystemExit) as stopped: cli.evaluate_command()
    told = capsys.readouterr().err
    assert stopped.value.code == 2 and told.count("\n") == 1 and "pip install 'pixnerd[evaluate]'" in told


def test_the_committed_table_is_of_the_shipped_model():
    table = json.loads((ROOT/"nbs"/"results"/"samplers.json").read_text())
    model = from_pretrained("digits")
    assert table["weights"] == fingerprint(model), "the model changed: run tools/measure samplers again"
    assert {"cpu", "torch", "pixnerd"} <= table["made_by"].keys()
    assert all(row["cpu_seconds_per_image"] > 0 for row in table["rows"])
    row, labels = table["rows"][0], torch.arange(table["samples"]) % 10
    how = SamplerSettings(row["method"], row["steps"], guidance_scale=row["guidance_scale"])
    images = torch.cat([draw_batch(model, numbers.tolist(), labels[numbers], torch.full_like(numbers, 10), how)
                        for numbers in torch.arange(len(labels)).split(100)])
    assert m.fidelity_digits(images)["fid-digits"] == pytest.approx(row["fid-digits"], rel=.01)
