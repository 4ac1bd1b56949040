"""Write LOG.md: every experiment, dated, with what did not work. `python tools/log.py`, or `--check` to compare only.

An entry is a function: it reads its results file, makes its table of it, and asserts what its verdict says, so that neither a
number nor a verdict outlives the results. An experiment whose numbers live in a notebook, which runs with every test, is
named with its section and has no table. Newest entries come first; nothing is taken out.
"""

import argparse
import json
import sys
from statistics import mean, stdev

from notebooks import ROOT, write_whole

HEAD = """<!-- Made by `python tools/log.py`: edit the entries there. -->

# Log

One entry an experiment, newest first, those that failed too. Tables are made from results files, and verdicts are checked against them
whenever the tests run. Intervals are 95 % intervals of a mean over seeds (Student's t).
"""
ENTRIES = []


def entry(date: str, title: str, command: str, *files: str):
    "Register a function that tells an experiment: question, table and verdict, in Markdown."
    def keep(tell):
        ENTRIES.append((date, title, command, files, tell))
        return tell
    return keep


def results(path: str): return json.loads((ROOT/path).read_text(encoding="utf-8"))


def table(heads, rows) -> str: return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in (heads, ["---"] * len(heads), *rows))


def interval(values) -> tuple[float, float]:
    "Mean and half the width of its 95 % interval."
    from scipy.stats import t
    return mean(values), t.ppf(.975, len(values) - 1) * stdev(values) / len(values) ** .5


def hardware(record) -> str:
    "What made a results file."
    made = record["made_by"][0] if isinstance(record["made_by"], list) else record["made_by"]
    return f"{made['cpu'] if made['device'] == 'cpu' else made['device']}, {made['threads']} thread{'s' * (made['threads'] > 1)}, torch {made['torch']}"


@entry("2026-11-23", "A midpoint rule for a sampler", "make notebooks NB=howto/add_sampler", "nbs/howto/add_sampler.ipynb")
def midpoint():
    return """Is a rule of second order worth its two evaluations? On a flow between Gaussians its error falls with slope 3, one more than theory promises: the leading part
cancels there. **A test on that flow flatters it**, so the page asks for slope 2 only, and judges on digits, where at equal cost it is nearest to a fine solution for the one
noise that was tried. One noise is no measurement."""


@entry("2026-11-23", "The field at the cost of a linear head", "python tools/benchmarks.py", "nbs/results/benchmarks-cpu.json")
def benchmarks():
    record = results("nbs/results/benchmarks-cpu.json")
    def row(series, task, way="lean"): return next(r for r in record["series"][series] if (r["task"], r["way"]) == (task, way))
    deep, asked = "XL/16 widths, 4 + 2 blocks", []
    for what, series, task, goal in (("training step, XL/16's widths", deep, "train", 1.25), ("guided sampling, XL/16's widths", "XL/16 widths, sampling", "sample", 1.25), ("training step, digits", "digits", "train", 1.5)):
        lean, published = row(series, task), row(series, task, "published")
        assert lean["ratio"] >= goal, f"{what}: {lean['ratio']:.2f}, asked {goal}"
        asked.append([what, f"{lean['ratio']:.2f} ({lean['low']:.2f} to {lean['high']:.2f})", f"{lean['peak_bytes'] / published['peak_bytes']:.2f}", f"{lean['seconds'] / row(series, task, 'linear')['seconds']:.1f}" if any(r["way"] == "linear" for r in record["series"][series]) else ""])
    total = {(m["preset"], m["way"]): m["state"] + m["peak"] for m in record["memory"]}
    extra = {preset: total[preset, "lean"] / total[preset, "linear"] - 1 for preset in ("L/16", "XL/16")}
    assert row(deep, "train")["peak_bytes"] <= .5 * row(deep, "train", "published")["peak_bytes"] and max(extra.values()) <= .05
    other = row("XL/16 widths, MKL", "train")
    return f"""Where does the field's memory go, and can it be had back without changing the function? Pairs of runs in one process, medians and quartiles; published arithmetic = 1.

{table(["", "speed of the lean field", "its peak memory", "its time, linear head = 1"], asked)}

Yes: by recomputing in tiles that fit the caches. Counted, not timed: training memory at batch 32 is {", ".join(f"{v:+.1%} for {preset}" for preset, v in extra.items())} against a linear head. Two things did not come off. **On processors where oneDNN is no
faster than MKL, the speed is nearly that of the published arithmetic** ({other['ratio']:.2f} for the same training step with oneDNN off): what is left there is the memory. And **hand-written RMSNorm and gate in the transformer gained nothing** in paired runs and were taken out again. No GPU run was made."""


@entry("2026-11-23", "The text model that ships, by six skills", "python tools/scene_eval.py", "nbs/results/scenes.json", "pixnerd/weights/scenes/training.json", "pixnerd/weights/scenes/metrics.json")
def scenes():
    found, training = results("nbs/results/scenes.json"), results("pixnerd/weights/scenes/training.json")
    held, known = found["table"]["held-out"], found["table"]["train"]
    assert all(s["low"] > s["control"]["high"] for result in (held, known) for s in result["skills"].values()), "a skill is not above its control"
    def told(r): return f"{r['rate']:.0%} [{r['low']:.0%}, {r['high']:.0%}]"
    best = {name: max(found[name], key=lambda k: found[name][k]["overall"]["rate"]) for name in ("guidance", "time_shift")}
    assert all(found["euler"][n]["overall"]["low"] > found["adams"][n]["overall"]["high"] for n in ("4", "6", "10"))
    assert all(found[name][best[name]]["overall"]["low"] < found[name][usual]["overall"]["high"] for name, usual in (("guidance", "4.0"), ("time_shift", "3.0"))), "resolved after all"
    weakest = min(held["skills"], key=lambda s: held["skills"][s]["rate"])
    return f"""Does a text model that a CPU can train learn compositions, or only the pictures it saw? {training['config']['steps']} steps of {training['config']['batch']} drawn scenes at 32 pixels; one pair of shape and colour in five was never shown.

{table(["skill", "held-out pairs", "prompts shuffled", "training's pairs"], [[name, told(held["skills"][name]), told(held["skills"][name]["control"]), told(known["skills"][name])] for name in held["skills"]] + [["mean", told(held["overall"]), told(held["control"]), told(known["overall"])]])}

It composes: every skill is far above its control on pairs it never saw. **{weakest.capitalize()} is its weakest skill.** In the sweeps on held-out pairs, one setting at a time, the highest scores were at guidance scale {best['guidance']} and time shift {best['time_shift']}, with intervals that overlap those of the published settings. **With few steps Euler is ahead of Adams here** ({told(found["euler"]["10"]["overall"])} against {told(found["adams"]["10"]["overall"])} at 10 steps, under the published guidance and shift): the
paper's order, for its models, is the other way round. One model, one training seed: the intervals are over prompts."""


@entry("2026-11-23", "Larger than trained: the encoding between the pixels", "python tools/scene_eval.py --only size", "nbs/results/scenes.json")
def between():
    found = results("nbs/results/scenes.json")
    whole, torn = found["size"], found["size, evaluated"]
    def told(r): return f"{r['rate']:.0%} [{r['low']:.0%}, {r['high']:.0%}]"
    assert all(whole[size]["overall"]["low"] > torn[size]["overall"]["high"] for size in ("64 px", "128 px")) and whole["32 px"]["overall"] == torn["32 px"]["overall"]
    assert all(whole[size]["overall"]["high"] > whole["32 px"]["overall"]["low"] for size in ("64 px", "128 px")), "larger pictures are worse"
    return f"""Why do pictures fall to pieces above the training size, when the patches are small? The guess of the entry on digits, below, put to the test on the scenes model: same weights, same noise, held-out prompts, mean of six skills.

{table(["side", "encoding evaluated (published)", "encoding interpolated"], [[size, told(torn[size]["overall"]), told(whole[size]["overall"])] for size in whole])}

The guess holds. Evaluated between the trained pixels, **the encoding asks the fields about waves that 8 pixels cannot hold**, and the pictures are torn; interpolated from the trained pixels, they are as good as at the trained size. It trains nothing and costs nothing. Not tried on patches of 16, where the published models are."""


@entry("2026-11-23", "The shipped model by solver, steps and guidance", "python tools/sampler_table.py", "nbs/results/samplers.json")
def samplers():
    record = results("nbs/results/samplers.json")
    rows = [r for r in record["rows"] if r["method"] == "euler"]
    most = [r for r in rows if r["steps"] == max(r["steps"] for r in rows)]
    few = {r["method"]: r["fid-digits"] for r in record["rows"] if r["steps"] == min(r["steps"] for r in rows) and r["guidance_scale"] == 1}
    assert [r["fid-digits"] for r in most] == sorted(r["fid-digits"] for r in most) and [r["recall-digits"] for r in most] == sorted((r["recall-digits"] for r in most), reverse=True)
    assert most[-1]["accuracy"] > most[0]["accuracy"] and few["adams, order 2"] < .7 * few["euler"]
    return f"""Which solver, and how much guidance? {record['samples']} samples a row; all rows are drawn in [notebook 12](nbs/12_evaluation.ipynb). Euler:

{table(["steps", "scale", "read as asked", "variety", "fid-digits", "precision", "recall"], [[r["steps"], f"{r['guidance_scale']:g}", f"{r['accuracy']:.1%}", f"{r['variety']:.2f}", f"{r['fid-digits']:.3f}", f"{r['precision-digits']:.2f}", f"{r['recall-digits']:.2f}"] for r in rows])}

Guidance makes single samples surer and the crowd poorer: accuracy rises, recall falls, **and FID gets worse with every step of the scale**. With few steps Adams of order 2 is well ahead of
Euler ({few['adams, order 2']:.3f} against {few['euler']:.3f} at {min(r['steps'] for r in rows)} steps, without guidance). One model and one seed of noise: no intervals."""


@entry("2026-11-23", "Alignment with a reader of digits", "python tools/alignment.py --steps 400 --seeds 3 --block 2", "nbs/results/alignment.json")
def alignment():
    record = results("nbs/results/alignment.json")
    assert record["command"] == "python tools/alignment.py --steps 400 --seeds 3 --block 2"
    plain, told = ([r for r in record["runs"] if r["align"] == name] for name in ("", "digits"))
    late = lambda run: mean(run["loss"][-5:])
    measures = {"flow-matching loss, end": late, "read as asked": lambda r: r["scores"]["accuracy"], "variety": lambda r: r["scores"]["variety"]}
    gains = {name: interval([f(b) - f(a) for a, b in zip(plain, told)]) for name, f in measures.items()}
    assert gains["read as asked"][0] > gains["read as asked"][1], "the interval of the gain in accuracy holds zero"
    assert all(b["scores"]["accuracy"] > a["scores"]["accuracy"] for a, b in zip(plain, told)), "a seed gains nothing"
    assert abs(gains["flow-matching loss, end"][0]) < .1 * mean(map(late, plain)), "the loss moves more than a tenth"
    kept = "resolved" if abs(gains["variety"][0]) > gains["variety"][1] else "not resolved with three seeds"
    return f"""Does REPA help a tiny model early in training? The digits preset with block 2 aligned to the shipped reader, or not; the same images, noise and times at every step.

{table(["", "without", "with", "difference, 95 % interval"], [[name, f"{mean(map(f, plain)):.3f}", f"{mean(map(f, told)):.3f}", f"{gains[name][0]:+.3f} ± {gains[name][1]:.3f}"] for name, f in measures.items()])}

The loss hardly moves. The share of samples read as asked rises with every seed; with {len(plain)} seeds the interval is wide, and excludes zero. What it costs in variety is {kept}. Two cautions: the reader was trained on the
*labels* of these digits, so this is more help than REPA gives on ImageNet; and **whether an advantage is left after ten times as many steps was not measured**."""


@entry("2026-11-23", "The digits model that ships", "pixnerd-train --steps 4000 --lr 0.004 --samples-every 1000", "pixnerd/weights/digits/training.json", "pixnerd/weights/digits/metrics.json")
def digits():
    training, found = results("pixnerd/weights/digits/training.json"), results("pixnerd/weights/digits/metrics.json")
    assert training["command"] == "pixnerd-train --steps 4000 --lr 0.004 --samples-every 1000" and found["accuracy"] > found["judge_on_held_out"] - .02 and found["variety"] < .95
    return f"""Can a PixNerd that trains on a CPU draw digits worth looking at? {training['config']['steps']} steps of {training['config']['batch']} in {training['seconds']} s ({training['note']}).

{table(["samples", "read as asked", "held-out digits read right", "variety", "novelty"], [[found["samples"], f"{found['accuracy']:.1%}", f"{found['judge_on_held_out']:.1%}", f"{found['variety']:.2f}", f"{found['novelty']:.2f}"]])}

Yes. **It is less varied than real digits** (1 is theirs), which guidance explains in part: see the entry on solvers. Novelty below 1: samples lie nearer to training digits than held-out digits do, and far from copies (0)."""


@entry("2026-11-23", "A reader of digits", "python tools/reader.py", "pixnerd/weights/reader/training.json")
def reader():
    record = results("pixnerd/weights/reader/training.json")
    assert record["accuracy_on_held_out"] > .98
    return f"""An encoder that alignment and evaluation can look through without a download: {record['epochs']} epochs, {record['accuracy_on_held_out']:.1%} of held-out digits read right. Good enough to judge with, and too small to be compared with Inception."""


@entry("2026-11-23", "Digits above their training size", "make notebooks NB=08", "nbs/08_samplers.ipynb")
def resolution():
    return """Does the field paint digits at 64, 128 and 256 pixels, untrained for it? **No: above the training size these digits fall to pieces**
([notebook 08](nbs/08_samplers.ipynb#one-noise-any-size)). A likely reason, not tested: a patch of 8 pixels cannot tell the published frequencies apart, so nothing held the fastest atoms between the pixels."""


@entry("2026-11-23", "Adams of order 4 under strong guidance", "make notebooks NB=08", "nbs/08_samplers.ipynb")
def adams():
    return """Do higher orders pay? Not with few steps and strong guidance: **order 4 lands far away from the fine solution**, and order 2 is the safe bargain ([notebook 08](nbs/08_samplers.ipynb#watching-digits-form), whose cells assert it).
The paper reports the same of order 4."""


@entry("2026-11-23", "Encodings, one patch, coordinates only", "make notebooks NB=03", "nbs/03_neural_field.ipynb")
def encodings():
    return """Which encoding learns a single patch best? By least squares the published dct is far ahead of sin/cos. In a trained field **the published encoding comes last of four** ([notebook 03](nbs/03_neural_field.ipynb#one-field-learns-one-patch)).
One patch, one seed, no noisy pixels: not the paper's question, in which the field sees the noisy pixel and the token changes from image to image."""


def text() -> str:
    "LOG.md as the entries make it."
    blocks = [HEAD]
    for date, title, command, files, tell in ENTRIES:
        made = ""
        for path in files:
            record = results(path) if path.endswith(".json") else {}
            if "made_by" in record: made = f" · {hardware(record)}"
        blocks.append(f"## {date} · {title}\n\n`{command}` → {', '.join(f'[{path}]({path})' for path in files)}{made}\n\n{tell()}\n")
    return "\n".join(blocks)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare only, write nothing")
    check, page = parser.parse_args().check, ROOT/"LOG.md"
    if not check: write_whole(page, text())
    elif not page.exists() or page.read_text(encoding="utf-8") != text():
        print("  LOG.md is not what tools/log.py makes; run `python tools/log.py`")
        return 1
    return 0


if __name__ == "__main__": sys.exit(main())
