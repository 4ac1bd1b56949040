"""Recipes and command lines that nobody means: what they do to the commands, up to where the work would begin.

`hostile(run)` says what is wrong with an answer: a traceback, an exit code that is no answer, not one line, too slow.
"""

import io
import time
import traceback
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from dataclasses import fields
from pathlib import Path
from random import Random
from typing import get_args
from unittest.mock import patch

from pixnerd import cli, training
from pixnerd.benchmarks import BenchConfig
from pixnerd.data import DATASETS, load_data
from pixnerd.metrics import MetricConfig
from pixnerd.run_settings import TrainConfig
from pixnerd.samplers import SamplerSettings

GOOD = [path.read_bytes() for path in sorted((Path(__file__).parent.parent/"recipes").glob("*.yaml"))]
SETTINGS = {
    "train": (TrainConfig, cli._Recipe), "sample": (cli.SampleConfig, SamplerSettings, cli._Where),
    "evaluate": (cli._EvaluateConfig, MetricConfig, cli.SampleConfig, SamplerSettings, cli._Where),
    "bench": (BenchConfig, cli._Quick),
    "demo": (TrainConfig, cli._Judged)}

NUMBERS = ["0", "1", "2", "-1", "7.5", "-0.0", "nan", "inf", "-inf", "1e400", "1e-400", "1e5", "0x10", "1_000", " 3 ",
"",
           "٣", "½", "10000001", str(2 ** 31), str(2 ** 63), str(2 ** 64), "9" * 400, "9" * 5000, "one", "None", "true"]
TEXTS = ["", " ", "~", "~/x", "~nosuchuser", "~nosuchuser/x", ".", "..", "/", "/dev/null", "/proc/self/mem",
"/nowhere/x",
         "file", "file/x", "full", "a\0b", "a\nb", "a\u2028b", "a\x85b", "a\x0cb", "\x1b[31m", "\udcff", "x" * 5000,
         "x/" * 3000, "cat", "🐱", "--", "-1", "%s%(default)s%", "{}", "0-9", "5-1", "0-99999999999999999999",
         "0," * 2000,
         "1-", "-", ",", ",,", "digits", "scenes", "stream:", "hub:", "hub:\0", "dct", "encoding=dct", "depth=1e9",
         "depth=999999999999", "patch=0", "patch=-8", "width=nan", "=", "a=b=c", "normalise=,", "class_names=x",
         "image_size=64", "euler", "cuda", "cuda:99", "mps", "cpu", "auto", "fp16", "tensorboard", "digits/16",
         "labels.txt", "odd.txt", "binary", "deep.json", "deep.yaml", "words", "class", "text", "fid", "fid,fid",
         "isc,",
         "inception-v3-compat", "published compiled compiled", "train,train"]


def fill(folder: Path) -> None:
    "Files for the lines to name."
    (folder/"file").write_text("kept")
    (folder/"full").mkdir()
    (folder/"full"/"mine.txt").write_text("kept")
    (folder/"labels.txt").write_text("3\n1\n")
    (folder/"odd.txt").write_text("\ufeff3\u20281\x85\n\x00\n" + "9" * 5000, encoding="utf-8")
    (folder/"binary").write_bytes(bytes(range(256)) * 8)
    (folder/"deep.json").write_text("[" * 100_000)
    (folder/"deep.yaml").write_text("[" * 3000)


def odd_line(r: Random) -> list[str]:
    "A command and its arguments."
    command = r.choice([*SETTINGS])
    options = [f for kind in SETTINGS[command] for f in fields(kind)]
    words = []
    for f in r.choices(options, k=r.randint(1, 4)):
        name = f.name.replace("_", "-")
        name = r.choices([f"--{name}", f"--no-{name}", f"--{name[:-1]}", f"-{name}"], [30, 3, 1, 1])[0]
        kinds = get_args(f.type) or (f.type,)
        text = str in kinds or any(str in get_args(kind) for kind in kinds)
        count = r.choices([0, 1, 2], [1, 15, 3])[0]
        values = [r.choice(TEXTS if text and r.random() < .9 else NUMBERS) for _ in range(count)]
        if bool in kinds and r.random() < .8: values = []
        if len(values) == 1 and r.random() < .3: words.append(f"{name}={values[0]}")
        else: words += [name, *values]
    return [command, *words]


SCALARS = ["!!bool abc", "!!timestamp abc", "!!int abc", "!!float abc", "!!null x", "!!binary '%%%'", "!!binary aGk=",
           "!!python/object:os.system [x]", "!!python/object/apply:os.system ['true']", "!!python/name:os.system ''",
           "!!set {a, b}", "!!omap [a: 1]", "!!pairs [a: 1]", "!unknown x", "!<tag:x> 1", "2001-02-30", "2001-02-03",
           "12:30:45",
           "0o777", "0b1", "0x" + "f" * 300, "1" * 5000, ".inf", "-.nan", "1e400", "1e-4", "yes", "No", "~", "null",
           "''",
           "' '", '"\\0"', '"a\\0b"', '"\\ud800"', '"\\U00110000"', '"\\x07"', "~nosuchuser/x", "~/x", "[]", "{}",
           "[1, 2]",
           "{a: {b: [c]}}", "*nothing", "&a [*a]", "&a {b: *a}", "|\n  a\n  b", ">-\n  a\n\n  b", "a: b", "- 1",
           "x" * 9000, "-1",
           "0", "1", "1.5", "99999999999999999999", "digits", "cuda", "@", "`", "%", "\t1", "🐱"]


def bomb(depth: int, width: int = 9) -> str:
    "Lists of lists of lists, by aliases: a few lines that are width ** depth texts when written out."
    lines = ["a0: &a0 [lol, lol]"]
    for i in range(1, depth): lines.append(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * width)}]")
    return "\n".join(lines) + "\n"


def nested_bomb(name: str, depth: int) -> str:
    "The same as the value of one setting."
    value = "&b0 [lol, lol]"
    for i in range(1, depth): value = f"&b{i} [{value}, {', '.join([f'*b{i - 1}'] * 8)}]"
    return f"{name}: {value}\n"


def odd_recipe(r: Random) -> bytes:
    "The bytes of a recipe file."
    names = [f.name for f in fields(TrainConfig)]
    kind = r.randrange(10)
    if kind < 5: # settings with odd values
        some = r.choices(names + ["", "?", "<<", "123", "null", "[a]", "lr ", "Steps", "x" * 5000], k=r.randint(1, 4))
        return "".join(f"{name}: {r.choice(SCALARS)}\n" for name in some).encode(errors="surrogatepass")
    if kind < 8: # a good one, damaged
        text = bytearray(r.choice(GOOD))
        for _ in range(r.randint(1, 6)):
            place = r.randrange(len(text) + 1)
            text[place:place + r.choice([0, 0, 1, 1, 5, 40])] = r.choice(
                [b"", b"\0", b"\xff", b"\t", b"\n", b":", b"- ", b"[", b"{", b"&a ", b"*a", b"!!", b"---\n",
                b"\xef\xbb\xbf",
                 bytes([r.randrange(256)])])
        return bytes(text)
    depth = r.choice([10, 500, 3000, 20000])
    deep = [b"[" * depth, b"{a: " * depth, b"- " * depth, b"? " * depth, b"a: " + b"[" * depth + b"]" * depth,
            b"model: " + b"{a: " * depth + b"1" + b"}" * depth, b"\0" * depth, bytes(r.randbytes(depth)), b"",
            b"%YAML 9.9\n---\nsteps: 1\n", b"---\nsteps: 1\n---\nsteps: 2\n", "steps: 1\n".encode("utf-16"),
            b"\xef\xbb\xbfsteps: 0\n", b"steps\n", b"- steps: 1\n", b"# nothing\n", b"steps: 1\nsteps: 0\n"]
    bombs = [bomb(r.choice([3, 9, 30])), *(nested_bomb(name, 30) for name in r.sample(names, 4))]
    return r.choice([*deep, *(text.encode() for text in bombs)])


def odd_lines(seed: int, count: int, folder: Path):
    "Command lines, one after the other, in turn with recipes that are written for them."
    r = Random(seed)
    for i in range(count):
        if i % 2: yield odd_line(r)
        else:
            (folder/"recipe.yaml").write_bytes(odd_recipe(r))
            yield ["train", "--recipe", "recipe.yaml"]


class Begun(Exception):
    "The work would begin here."


def _begin(*arguments, **settings): raise Begun


def _load_data(name, *arguments, **settings):
    if name in DATASETS: raise Begun # built in: loading is work
    return load_data(name, *arguments, **settings)


def stop_before_work() -> ExitStack:
    "Where a model is built, images are drawn or measured and times are taken, `Begun` is raised instead."
    stack = ExitStack()
    stack.enter_context(patch.object(training, "load_data", _load_data))
    for place, name in ((training, "make_model"), (cli, "draw_samples"), (cli, "make_extractor"), (cli, "bench"),
                        (cli, "load_text_encoder")):
        stack.enter_context(patch.object(place, name, _begin))
    return stack


def answer(words: list[str]) -> tuple[int | None, str, float]:
    "Exit code (None: the work would have begun), what was said, seconds of a processor; raises what is no answer."
    start = time.process_time()
    with stop_before_work(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()) as said:
        code = 0
        try: cli.run_command(cli.COMMANDS[f"pixnerd-{words[0]}"], words[1:])
        except Begun: code = None
        except SystemExit as left: code = left.code or 0
    return code, said.getvalue(), time.process_time() - start


def hostile(words: list[str], slow: float = 1.) -> tuple[str, str, float]:
    "What became of a line: begun, done, refused or what is wrong with it; what was said; seconds."
    try: code, said, seconds = answer(words)
    except BaseException as e:
        if isinstance(e, KeyboardInterrupt): raise
        return "traceback", traceback.format_exc()[-1500:], 0.
    lines = [line for line in said.split("\n") if line.strip() and not line.startswith("warning: ")]
    if seconds > slow: return "slow", said[:300], seconds
    if code is None: return "begun", said, seconds
    if code == 0: return "done", said, seconds
    if code != 2: return f"exit code {code}", said[:300], seconds
    if len(lines) != 1 or len(lines[0].splitlines()) != 1 or not lines[0].startswith("error: "):
        return "not one line", said[:1500], seconds
    return "refused", lines[0], seconds
