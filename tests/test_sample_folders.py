"Folders of samples: they survive a kill, are shared by processes, and refuse what does not belong; locks; text suites."

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pixnerd import PixNerd, cli, records, sample_folders as s
from pixnerd.checkpoints import _RENAMED, from_pretrained
from pixnerd.image_sources import open_images, read_file
from pixnerd.model import PixNerdConfig
from pixnerd.patches import to_uint8
from pixnerd.samplers import SamplerSettings

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = "from pixnerd.cli import sample_command; sample_command()"
QUICK = SamplerSettings(steps=1)


def sample(*arguments) -> None:
    "pixnerd-sample in this process."
    cli.sample_main(list(map(str, arguments)))


def started(*words) -> dict:
    "Words that start Python in a process of its own, as subprocess takes them."
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return dict(args=[sys.executable, *map(str, words)], cwd=ROOT, env=environment)


@contextmanager
def one_thread():
    "As in the processes that are started here: the number of threads decides the last bit of an image."
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try: yield
    finally: torch.set_num_threads(before)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.*") if p.is_file()}


# Interruptions and processes

@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[list, dict]:
    "A command, and the files that it writes when nobody disturbs it."
    some, out = ["--total", 160, "--batch", 4, "--steps", 6, "--seed", 3], tmp_path_factory.mktemp("whole")/"a"
    with one_thread(): sample(*some, "--out", out)
    return some, contents(out/"images")


def test_killed_and_continued_it_writes_the_same_files(whole, tmp_path):
    some, files = whole
    silent = dict(stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    process = subprocess.Popen(**started("-c", SAMPLE, *some, "--npz", "--out", tmp_path/"a"), **silent)
    while len(list(tmp_path.glob("a/images/[0-9]*"))) < 9:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    there = {p.name: p.read_bytes() for p in (tmp_path/"a"/"images").glob("[0-9]*")}
    assert 9 <= len(there) < len(files) and there.items() <= files.items(), "what is there is whole"
    (tmp_path/"a"/"images"/".000159-class9.png.1.tmp").write_bytes(b"cut off")
    with pytest.raises(ValueError, match="are not complete"): open_images(tmp_path/"a")
    with one_thread(): sample(*some, "--npz", "--out", tmp_path/"a")
    assert contents(tmp_path/"a"/"images") == files
    record = json.loads((tmp_path/"a"/"samples.json").read_text())
    assert record["images"] == 160 and record["drawn"] == 160 - len(there)
    assert record["weights"] == records.fingerprint(from_pretrained("digits"))
    assert len(np.load(tmp_path/"a"/"samples.npz")["arr_0"]) == 160
    assert not list((tmp_path/"a").rglob(".*")), "no lock and no half file is left"


def test_two_processes_write_the_same_files(whole, tmp_path):
    some, files = whole
    (tmp_path/"sample.py").write_text(SAMPLE)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", 2, tmp_path/"sample.py"]
    done = subprocess.run(**started(*launcher, *some, "--device", "cpu", "--out", tmp_path/"a"), capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path/"a"/"images") == files
    assert json.loads((tmp_path/"a"/"samples.json").read_text())["made_by"]["processes"] == 2
    assert done.stdout.count("images in") == 1


def test_an_interruption_keeps_what_is_drawn_or_leaves_nothing(tmp_path, monkeypatch):
    some = ["--total", 8, "--batch", 4, "--steps", 2, "--out", tmp_path/"deep"/"a"]
    inner = s.write_image
    def stop(when):
        def write(path, image):
            if path.name.startswith(when): raise KeyboardInterrupt
            inner(path, image)
        monkeypatch.setattr(s, "write_image", write)
    stop("000000")
    with pytest.raises(KeyboardInterrupt): sample(*some)
    assert not list(tmp_path.iterdir())
    stop("000005")
    with pytest.raises(KeyboardInterrupt): sample(*some)
    assert len(list((tmp_path/"deep"/"a"/"images").iterdir())) == 5
    with pytest.raises(ValueError, match="steps was 2 in the samples at .*, got 3"): sample(*some, "--steps", 3)
    monkeypatch.undo()
    sample(*some)
    names = sorted(p.name for p in (tmp_path/"deep"/"a").iterdir())
    assert names == ["images", "samples.json", "samples.png", "settings.json"]


def test_what_is_asked_for_in_a_folder_later(tmp_path, capsys):
    some = ["--total", 4, "--steps", 2, "--out", tmp_path/"a"]
    sample(*some)
    record = (tmp_path/"a"/"samples.json").read_bytes()
    sample(*some, "--npz", "--no-images")
    names = sorted(p.name for p in (tmp_path/"a").iterdir())
    assert names == ["samples.json", "samples.npz", "samples.png", "settings.json"]
    sample(*some)
    assert "complete already" in capsys.readouterr().out
    assert (tmp_path/"a"/"samples.json").read_bytes() == record and not (tmp_path/"a"/"images").exists()
    assert len(open_images(tmp_path/"a")) == 4


def test_a_folder_begun_by_the_first_version_is_continued(tmp_path):
    "Its settings knew of no base size, and its weights went by the first names of their tensors."
    sample("--total", 4, "--batch", 2, "--steps", 2, "--out", tmp_path/"a")
    path = tmp_path/"a"/"settings.json"
    first = "0ff2082c6d4a9eedc5204985b5ed2fcc990ed1fb0ac0d25559eb78f8a68d3bf5" # of the digits, by the first version
    settings = json.loads(path.read_text())
    assert settings["weights"] == first and settings.pop("base_size") is None
    keys = {"classes", "count", "total", "weights", "images", "labels", "seed", "batch", "size", "method", "steps",
            "order", "guidance_scale", "guidance_interval", "time_shift", "pixnerd"}
    assert set(settings) == keys
    path.write_text(json.dumps(settings))
    (tmp_path/"a"/"samples.json").unlink()
    (tmp_path/"a"/"images"/"000003-class3.png").unlink()
    sample("--total", 4, "--batch", 2, "--steps", 2, "--out", tmp_path/"a")
    assert json.loads((tmp_path/"a"/"samples.json").read_text())["drawn"] == 1
    with pytest.raises(ValueError, match=r"base_size was None in the samples at .*, got \[32, 32\]"):
        sample("--total", 4, "--batch", 2, "--steps", 2, "--base-size", 32, 32, "--out", tmp_path/"a")


def test_every_renamed_tensor_keeps_its_first_name_in_fingerprints():
    assert records._FIRST_NAMES == {r.now: r.before for r in _RENAMED if r.what == "tensor"}


@pytest.mark.parametrize("name", [".DS_Store", "lost+found", ".ipynb_checkpoints", "desktop.ini", "Thumbs.db", "@eaDir",
                                  "__MACOSX", "._images", ".config.json.4711.tmp", "$RECYCLE.BIN",
                                  "System Volume Information", ".Trash-1000", "#recycle", ".nfs0001", ".stfolder",
                                  ".gitkeep", ".dropbox"])
def test_a_folder_that_only_a_system_has_touched_is_taken(name, tmp_path):
    if "." in name[1:] or name.startswith(".D"): (tmp_path/name).write_text("")
    else: (tmp_path/name).mkdir()
    assert records.is_vacant(tmp_path)
    assert list(s.draw_samples(from_pretrained("digits"), [0] * 2, tmp_path, QUICK))[-1] == 2
    assert (tmp_path/name).exists() or name.endswith(".tmp")
    assert not records.is_vacant(tmp_path)


# Files of text

ODD = "a\u2028b\x85c\x0cd \x1e" # ends of lines to str.splitlines, and to nobody who writes files

def test_only_line_ends_end_lines(tmp_path):
    (tmp_path/"a.jsonl").write_text("".join(json.dumps({"prompt": ODD + str(i)}, ensure_ascii=False) + "\r\n"
                                            for i in range(3)), encoding="utf-8-sig")
    assert [entry["prompt"] for entry in s._read_geneval(tmp_path/"a.jsonl")] == [ODD + str(i) for i in range(3)]
    (tmp_path/"labels.txt").write_text(f"{ODD}\r\n1\n", encoding="utf-8-sig")
    config = replace(PixNerd.from_preset("digits").config, num_classes=2, class_names=("cat", ODD.strip()))
    assert cli._read_labels(tmp_path/"labels.txt", config) == [1, 1]
    s.finish_samples(tmp_path, [ODD, "two\nlines\r"], {"model": "none"})
    assert (tmp_path/"prompts.txt").read_bytes() == b"a b c d\ntwo lines\n"


def test_what_is_no_text_is_refused_by_name(tmp_path):
    (tmp_path/"odd.txt").write_bytes(b"3\n\xff\n")
    for read in (s._read_geneval, lambda path: s._read_dpg(path.parent), records.read_record,
                 lambda path: cli._read_labels(path, PixNerd.from_preset("digits").config)):
        with pytest.raises(ValueError, match="odd.txt is .*not UTF-8 text: invalid start byte at byte 2"):
            read(tmp_path/"odd.txt")


@pytest.mark.parametrize("room", ["records", "tables", "sample_folders", "command", "cli"])
def test_every_text_file_is_opened_with_its_encoding(room):
    tree = ast.parse((ROOT/"pixnerd"/f"{room}.py").read_text(encoding="utf-8"))
    for call in ast.walk(tree):
        name = getattr(getattr(call, "func", None), "attr", getattr(getattr(call, "func", None), "id", ""))
        if name in ("open", "read_text", "write_text") and not any(isinstance(a, ast.Attribute) for a in call.args):
            given = {k.arg for k in call.keywords}
            own = name == "open" and isinstance(call.func, ast.Attribute) # an archive's, whose members are bytes
            ours = name == "read_text" and isinstance(call.func, ast.Name)
            assert own or ours or "encoding" in given, ast.unparse(call)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("unexpected pos 64 vs 0")])
def test_a_full_disk_is_called_one(error, tmp_path, monkeypatch):
    monkeypatch.setattr(records.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100, 100, 0))
    def write(path): raise error
    with pytest.raises(OSError, match="cannot write .*a.pt: the disk is full"):
        records.write_whole(tmp_path/"a.pt", write)
    monkeypatch.undo()
    with pytest.raises(OSError, match="a.pt: broken"): records.write_whole(tmp_path/"a.pt", fails)
    assert not list(tmp_path.iterdir())


def fails(path): raise RuntimeError("broken")


# Locks

def test_two_commands_do_not_draw_into_one_folder(tmp_path):
    model = from_pretrained("digits")
    first = s.draw_samples(model, [0] * 4, tmp_path/"a", QUICK, batch=2)
    next(first)
    next(first)
    with pytest.raises(ValueError, match="another command is drawing into"):
        next(s.draw_samples(model, [0] * 4, tmp_path/"a", QUICK, batch=2))
    assert list(first)[-1] == 4


def test_a_lock_goes_with_its_holder_even_when_that_is_killed(tmp_path):
    code = f"""
import time
from pixnerd.records import lock_folder
lock = lock_folder({str(tmp_path)!r}, 'training is running in')
print('locked', flush=True)
time.sleep(60)
"""
    holder = subprocess.Popen(**started("-c", code), stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "locked\n"
    with pytest.raises(ValueError, match=f"another training is running in {tmp_path}: wait for it, or choose another"):
        records.lock_folder(tmp_path, "training is running in")
    holder.kill()
    holder.wait()
    records.lock_folder(tmp_path, "training is running in").release()
    kept = records.lock_folder(tmp_path, "training is running in")
    del kept # nobody holds it any more
    records.lock_folder(tmp_path, "training is running in").release()


# Provenance

def test_the_commit_is_told_only_in_a_checkout_of_this_package(tmp_path):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    shutil.copytree(ROOT/"pixnerd", tmp_path/"pixnerd", ignore=shutil.ignore_patterns("__pycache__"))
    code = """
import subprocess
from pixnerd.records import source_commit
print(source_commit())
git = ['git', '-c', 'user.name=t', '-c', 'user.email=t@example.org']
for step in (['add', 'pixnerd/__init__.py'], ['commit', '-qm', 'one']): subprocess.run([*git, *step], check=True)
print(source_commit())
open('pixnerd/__init__.py', 'a').write('#')
print(source_commit())
"""
    said = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)},
                          capture_output=True, text=True).stdout.split()
    git = ["git", "-C", str(tmp_path), "rev-parse", "HEAD"]
    head = subprocess.run(git, capture_output=True, text=True).stdout.strip()
    assert said == ["None", head, f"{head}-dirty"] # first: copied into a checkout of something else


# Text suites

@pytest.fixture
def sampler() -> s.TextSampler:
    "A small text model with random weights, and an encoder that hashes: equal texts, equal images."
    torch.manual_seed(0)
    model = PixNerd(PixNerdConfig(image_size=32, patch=8, width=32, heads=2, depth=1, field_depth=1, field_width=8,
                                  num_classes=0, text_width=16, text_tokens=4, text_depth=1)).eval()
    for w in model.parameters(): torch.nn.init.normal_(w, std=.1) # a fresh model's velocity is zero: all would be equal
    def encode(texts):
        seeds = [int(records.digest(text), 16) % 2 ** 32 for text in texts]
        return torch.stack([torch.randn(4, 16, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    return s.TextSampler(model, encode, SamplerSettings(steps=2, guidance_scale=4.))


def test_geneval_layout_and_continuation(sampler, tmp_path):
    entries = [{"tag": "two", "include": [{"class": "bench", "count": 1}], "prompt": f"a photo of {n} benches"}
               for n in ("one", "two", "three")]
    prompts = tmp_path/"evaluation_metadata.jsonl"
    prompts.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    assert list(s.draw_geneval(sampler, prompts, tmp_path/"a", batch=5)) == [0, 5, 10, 12]
    files = contents(tmp_path/"a"/"images")
    names = [f"{i:05d}/{name}" for i in range(3)
             for name in ("metadata.jsonl", *(f"samples/{j:04d}.png" for j in range(4)))]
    assert sorted(files) == sorted(names)
    assert [json.loads(files[f"{i:05d}/metadata.jsonl"]) for i in range(3)] == entries
    assert len(set(files.values())) == 15, "all differ"
    steps = s.draw_geneval(sampler, prompts, tmp_path/"b", batch=5)
    assert [next(steps), next(steps)] == [0, 5]
    steps.close()
    assert list(s.draw_geneval(sampler, prompts, tmp_path/"b", batch=5))[-1] == 12
    assert contents(tmp_path/"b"/"images") == files
    prompts.write_text(json.dumps({"prompt": "another"}) + "\n")
    with pytest.raises(ValueError, match="prompts was .* in the samples at"):
        next(s.draw_geneval(sampler, prompts, tmp_path/"b", batch=5))


def test_the_seed_of_the_settings_decides(sampler, tmp_path):
    other = replace(sampler, settings=replace(sampler.settings, seed=1))
    assert torch.equal(sampler(["a"], [0]), sampler(["a"], [0]))
    assert not torch.equal(sampler(["a"], [0]), other(["a"], [0]))
    one, two = (list(s.draw_samples(t.model, ["a"], tmp_path/str(t.settings.seed), t.settings, encode=t.encode))
                for t in (sampler, other))
    assert one == two == [0, 1]
    assert (tmp_path/"0/images/000000.png").read_bytes() != (tmp_path/"1/images/000000.png").read_bytes()


def test_dpg_layout_and_four_images_in_a_square(sampler, tmp_path):
    names = ("12", "COCOval2014000000000074", "drawtext.3")
    (tmp_path/"prompts").mkdir()
    for name in names: (tmp_path/"prompts"/f"{name}.txt").write_text(f"about {name}\n")
    assert list(s.draw_dpg(sampler, tmp_path/"prompts", tmp_path/"a", batch=2)) == [0, 2, 3]
    assert sorted(p.stem for p in (tmp_path/"a"/"images").iterdir()) == list(names)
    square = read_file(tmp_path/"a"/"images"/"COCOval2014000000000074.png")
    parts = torch.stack([square[:, r:r + 32, c:c + 32] for r in (0, 32) for c in (0, 32)])
    alone = to_uint8(sampler(["about COCOval2014000000000074"] * 4, range(4, 8)))
    assert square.shape == (3, 64, 64) and (parts.int() - alone.int()).abs().max() <= 1


def test_bad_suites_are_refused(sampler, tmp_path):
    (tmp_path/"a.jsonl").write_text('{"prompt": "fine"}\n{"prompt": 3}\n')
    (tmp_path/"b.jsonl").write_text("")
    (tmp_path/"c.jsonl").write_text('{"prompt": "fine"}\n')
    (tmp_path/"empty").mkdir()
    def refused(draw, sampler, prompts): next(draw(sampler, tmp_path/prompts, tmp_path/"out"))
    with pytest.raises(ValueError, match="a.jsonl, line 2: expected an object with a prompt"):
        refused(s.draw_geneval, sampler, "a.jsonl")
    with pytest.raises(ValueError, match="holds no prompts"): refused(s.draw_geneval, sampler, "b.jsonl")
    with pytest.raises(ValueError, match="holds no .txt files"): refused(s.draw_dpg, sampler, "empty")
    with pytest.raises(FileNotFoundError): refused(s.draw_geneval, sampler, "none.jsonl")
    classes = s.TextSampler(from_pretrained("digits"), sampler.encode, SamplerSettings())
    with pytest.raises(ValueError, match="need a text model"): refused(s.draw_geneval, classes, "c.jsonl")
    assert not (tmp_path/"out").exists()


def test_a_prompt_of_two_lines_is_one_line_beside_its_images(tmp_path):
    sample("--prompt", "a red\ncircle", "a star", "--count", 1, "--steps", 1, "--out", tmp_path/"a")
    assert (tmp_path/"a"/"prompts.txt").read_text() == "a red circle\na star\n"
