"""Write LOG.md: every experiment, dated, with what did not work. `python tools/log.py`, or `--check` to compare only.

An entry is a function: it reads its results file, makes its table of it, and asserts what its verdict says, so that neither a
number nor a verdict outlives the results. An experiment whose numbers live in a notebook, which runs with every test, is
named with its section and has no table. Newest entries come first; nothing is taken out.
"""

import argparse
import json
import sys

from notebooks import ROOT, write_whole
from pixnerd.studies import ERROR, FID, READ, Measure, Study, as_table, compare_arms

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


def hardware(record) -> str:
    "What made a results file."
    made = record["made_by"][0] if isinstance(record["made_by"], list) else record["made_by"]
    return f"{made['cpu'] if made['device'] == 'cpu' else made['device']}, {made['threads']} thread{'s' * (made['threads'] > 1)}, torch {made['torch']}"


def study(name: str) -> Study: return Study(results(f"nbs/results/{name}.json"))


def verdicts(s: Study, baseline: str, *arms: str, measure: Measure = ERROR, **at) -> list[str]:
    "What each arm is worth against a baseline."
    return [s.change(arm, baseline, measure, **at).verdict(measure.lower_is_better) for arm in arms]


@entry("2026-11-23", "Field or linear head, by patch", "python tools/studies.py heads", "nbs/results/heads.json")
def heads():
    s = study("heads")
    steps, patches = s.record["scale"]["steps"], (2, 4, 8, 16)
    equal = {p: round(steps * s.record["times"][f"patch {p}"][f"linear, patch {p}"]["ratio"]) for p in patches}
    def told(p, m, at): return m.tell(d := s.change(f"field, patch {p}", f"linear, patch {p}", m, before=at)) + {"not resolved": ", not resolved"}.get(d.verdict(), "")
    def verdict(p, m, at): return s.change(f"field, patch {p}", f"linear, patch {p}", m, before=at).verdict()
    assert all(verdict(16, m, at) == "better" for m in (ERROR, FID) for at in (steps, equal[16])), "patch 16"
    assert (verdict(8, ERROR, steps), verdict(8, ERROR, equal[8]), verdict(8, FID, steps), verdict(8, FID, equal[8])) == ("not resolved", "worse", "better", "better"), "patch 8"
    assert all(verdict(p, ERROR, at) == "worse" for p in (2, 4) for at in (steps, equal[p])), "patches 2 and 4"
    return f"""Does a field paint large patches better than a linear layer? Equal parameters, the same 16 tokens, patches that grow with the image; change of the field against the linear head.

{as_table(["patch", "held-out error, equal steps", "equal time", "fid-digits, equal steps", "equal time"], [[p, *(told(p, m, at) for m in (ERROR, FID) for at in (steps, equal[p]))] for p in patches])}

At patches of 16 the field wins by far: a linear head cannot bring 256 values of noise through a token of 128. **At 2 and 4 the linear head wins**, in error, and more so for equal time. At 8 the field's pictures are better in both comparisons, while for equal time the linear head's *error* is lower: one loss does not rank models. One data set, one width, early in training. [The study](nbs/studies/heads.ipynb)."""


@entry("2026-11-23", "Why velocity survives: noisy pixels in the field", "python tools/studies.py pixels", "nbs/results/pixels.json")
def pixels():
    s = study("pixels")
    assert all(verdicts(s, f"field, width {w}", f"field without pixels, width {w}", f"linear, width {w}") == ["worse"] * 2 for w in (32, 64)), "narrow tokens"
    kinds = ("field", "field without pixels", "linear")
    growth = {kind: s.mean(f"{kind}, width 32").mean / s.mean(f"{kind}, width 128").mean for kind in kinds}
    assert growth["field"] < 1.6 and min(growth["field without pixels"], growth["linear"]) > 3
    assert all(mark["loss"] > .5 for mark in s.mark("linear, width 32").values()), "below the floor of a linear bottleneck"
    return f"""Is it because the field sees the noisy pixels that predicting velocity works with large patches? Patches of 64 values, tokens of 32, 64 and 128. Held-out error:

{as_table(["token width", *kinds], [[w, *(f"{s.mean(f'{kind}, width {w}').mean:.3f}" for kind in kinds)] for w in (32, 64, 128)])}

Yes. Without noisy pixels a field fails as a linear head does, where the token is narrower than the patch, and recovers where it is wider; with them it loses little. Predicting the clean image with a linear head, the other way out, was not tried. [The study](nbs/studies/pixels.ipynb)."""


@entry("2026-11-23", "Encodings in a trained model", "python tools/studies.py encodings --seeds 5", "nbs/results/encodings.json")
def encodings_trained():
    s = study("encodings")
    found = dict(zip(s.arms[1:], verdicts(s, "dct", *s.arms[1:])))
    assert found == {"integer-dct": "not resolved", "sincos": "not resolved", "separable-cosine": "worse", "none": "worse"}, found
    assert [verdicts(s, "dct", "sincos", "integer-dct", measure=m) for m in (FID, READ)] == [["worse", "not resolved"]] * 2
    return f"""Which encoding, when the field sees noisy pixels and the token changes with the image?

{compare_arms(s, "dct")}

**The paper's order holds in pictures**: dct draws better ones than sin/cos, so that the entry on a single patch, below, does not carry over; in the error it is not resolved. Whole or fractional frequencies: no difference that lasted. Three seeds had *resolved* that whole ones draw worse, and two more took it back. [The study](nbs/studies/encodings.ipynb)."""


@entry("2026-11-23", "The field's shape", "python tools/studies.py shape --seeds 5", "nbs/results/shape.json")
def shape():
    s = study("shape")
    found = dict(zip(s.arms[1:], verdicts(s, "as the preset", *s.arms[1:])))
    assert [arm for arm, v in found.items() if v == "worse"] == ["normalised: W2", "normalised: W1; no output norm", "field width 16", "2 + 3 blocks"] and "better" not in found.values(), found
    return f"""Norms, width, and blocks of the field against blocks of the transformer, one change at a time.

{compare_arms(s, "as the preset")}

The paper's choice of norms leads every other; either the first matrix or the output must be normalised, and without both the error is far worse. **A wider field shows no gain, and with five blocks in all the transformer needs them more than the field.** With three seeds the wider field had been *resolved* to be worse; two more took it back. [The study](nbs/studies/shape.ipynb)."""


@entry("2026-11-23", "Solvers, steps, guidance interval", "python tools/studies.py solvers", "nbs/results/solvers.json")
def solvers():
    s, far = study("solvers"), Measure("distance", "distance to a fine solution", ".3f", relative=True)
    def verdict(arm, base, m): return s.change(arm, base, m).verdict(m.lower_is_better)
    def told(name, n, m, ending=""): return f"{s.mean(f'{name}, {n} evaluations{ending}', m).mean:{m.spec}}"
    assert all(verdict(f"Adams 2, {n} evaluations", f"Euler, {n} evaluations", far) == "better" for n in (6, 12, 25))
    assert [verdict(f"Adams 2, {n} evaluations", f"Euler, {n} evaluations", FID) for n in (6, 12, 25)] == ["better", "not resolved", "not resolved"]
    assert all(verdict(f"Adams 4, {n} evaluations, scale 3.5", f"Euler, {n} evaluations, scale 3.5", far) == "worse" for n in (6, 12))
    recall = Measure("recall-digits", "recall", ".2f", lower_is_better=False)
    spans = [f"scale 3 on {span}" for span in ("0 to 1", "0.1 to 1", "0.3 to 1")]
    assert [verdict(b, a, recall) for a, b in zip(spans, spans[1:])] == ["better"] * 2
    return f"""Does the shorter way to the flow's end make better pictures, and when should guidance act? The shipped digits, three sets of noises.

{as_table(["evaluations", "Euler: distance", "Adams 2", "Euler: fid-digits", "Adams 2", "scale 3.5, distance: Euler", "Adams 2", "Adams 4"], [[n, *(told(name, n, m) for m in (far, FID) for name in ("Euler", "Adams 2")), *(told(name, n, far, ", scale 3.5") for name in ("Euler", "Adams 2", "Adams 4"))] for n in (6, 12, 25)])}

Adams is nearer at every cost; **pictures notice only at six evaluations**. Order 4 is unstable under guidance with few evaluations, as the paper says. At scale 3, recall is {", ".join(f"{s.mean(arm, recall).mean:.2f} guiding on {arm.split(' on ')[1]}" for arm in spans)}: when guidance acts matters more than how strongly. [The study](nbs/studies/solvers.ipynb)."""


@entry("2026-11-23", "Any resolution: right, whole, better than enlarged?", "python tools/studies.py sizes", "nbs/results/sizes.json")
def sizes():
    s, seams = study("sizes"), Measure("seams", "seams", ".2f")
    arms = {size: [f"scenes, {size} px, {way}" for way in ("evaluate", "interpolate", "enlarged")] for size in (64, 128)}
    for torn, whole, flat in arms.values():
        assert s.change(whole, flat, READ).verdict(False) == "not resolved" and s.change(whole, flat, seams).verdict() == "worse" and s.change(torn, flat, READ).verdict(False) == "worse"
    return f"""Larger than trained is possible (the entry on the encoding between the pixels). Is it *better* than enlarging a picture drawn at the trained size? Scenes: read as asked, and steps across patch borders over those inside.

{as_table(["side", *(f"{way}: {what}" for way in ("evaluate", "interpolate", "enlarged") for what in ("read", "seams"))], [[size, *(f"{s.mean(arm, m).mean:{m.spec}}" for arm in some for m in (READ, seams))] for size, some in arms.items()])}

**Not by these measures.** Interpolated drawings are read as well as enlarged ones, not better, and they have seams. They are sharper, which no judge here rewards. [The study](nbs/studies/sizes.ipynb)."""


@entry("2026-11-23", "Alignment, early and later", "python tools/studies.py alignment", "nbs/results/alignment.json")
def alignment():
    s = study("alignment")
    marks = [m["step"] for m in s.record["rows"][0]["marks"]]
    def told(m, step): return s.change("with", "without", m, step, step)
    assert [told(ERROR, step).verdict() for step in marks] == ["not resolved"] * 4, "the error moves"
    gains = [told(READ, step) for step in marks]
    assert [g.verdict(False) for g in gains] == ["not resolved"] + ["better"] * 3, "the interval of the gain in accuracy holds zero"
    assert gains[1].mean > gains[2].mean > gains[3].mean, "the advantage does not shrink"
    return f"""Does REPA help a tiny model, and what is left of it later? The digits preset with block 2 aligned to the shipped reader, or not; the same images, noise and times at every step. Change by alignment:

{as_table(["steps", *(m.name for m in (ERROR, FID, READ))], [[step, *(m.tell(told(m, step)) for m in (ERROR, FID, READ))] for step in marks])}

The error does not move at any mark. More samples are read as asked, **and the advantage shrinks as training goes on**: a head start. The reader was trained on the *labels* of these digits, so this is more help than REPA gives on ImageNet. [The study](nbs/studies/alignment.ipynb)."""


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

{as_table(["", "speed of the lean field", "its peak memory", "its time, linear head = 1"], asked)}

Yes: by recomputing in tiles that fit the caches. Counted, not timed: training memory at batch 32 is {", ".join(f"{v:+.1%} for {preset}" for preset, v in extra.items())} against a linear head. Two things did not come off. **On processors where oneDNN is no
faster than MKL, the speed is nearly that of the published arithmetic** ({other['ratio']:.2f} for the same training step with oneDNN off): what is left there is the memory. And **hand-written RMSNorm and gate in the transformer gained nothing** in paired runs and were taken out again. No GPU run was made."""


@entry("2026-11-23", "The text model that ships, by six skills", "python tools/scene_eval.py", "nbs/results/scenes.json", "pixnerd/weights/scenes/training.json", "pixnerd/weights/scenes/metrics.json")
def load_scenes():
    found, training = results("nbs/results/scenes.json"), results("pixnerd/weights/scenes/training.json")
    held, known = found["table"]["held-out"], found["table"]["train"]
    assert all(s["low"] > s["control"]["high"] for result in (held, known) for s in result["skills"].values()), "a skill is not above its control"
    def told(r): return f"{r['rate']:.0%} [{r['low']:.0%}, {r['high']:.0%}]"
    best = {name: max(found[name], key=lambda k: found[name][k]["overall"]["rate"]) for name in ("guidance", "time_shift")}
    assert all(found["euler"][n]["overall"]["low"] > found["adams"][n]["overall"]["high"] for n in ("4", "6", "10"))
    assert all(found[name][best[name]]["overall"]["low"] < found[name][usual]["overall"]["high"] for name, usual in (("guidance", "4.0"), ("time_shift", "3.0"))), "resolved after all"
    weakest = min(held["skills"], key=lambda s: held["skills"][s]["rate"])
    return f"""Does a text model that a CPU can train learn compositions, or only the pictures it saw? {training['config']['steps']} steps of {training['config']['batch']} drawn scenes at 32 pixels; one pair of shape and colour in five was never shown.

{as_table(["skill", "held-out pairs", "prompts shuffled", "training's pairs"], [[name, told(held["skills"][name]), told(held["skills"][name]["control"]), told(known["skills"][name])] for name in held["skills"]] + [["mean", told(held["overall"]), told(held["control"]), told(known["overall"])]])}

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

{as_table(["side", "encoding evaluated (published)", "encoding interpolated"], [[size, told(torn[size]["overall"]), told(whole[size]["overall"])] for size in whole])}

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

{as_table(["steps", "scale", "read as asked", "variety", "fid-digits", "precision", "recall"], [[r["steps"], f"{r['guidance_scale']:g}", f"{r['accuracy']:.1%}", f"{r['variety']:.2f}", f"{r['fid-digits']:.3f}", f"{r['precision-digits']:.2f}", f"{r['recall-digits']:.2f}"] for r in rows])}

Guidance makes single samples surer and the crowd poorer: accuracy rises, recall falls, **and FID gets worse with every step of the scale**. With few steps Adams of order 2 is well ahead of
Euler ({few['adams, order 2']:.3f} against {few['euler']:.3f} at {min(r['steps'] for r in rows)} steps, without guidance). One model and one seed of noise: no intervals."""


@entry("2026-11-23", "The digits model that ships", "pixnerd-train --steps 4000 --lr 0.004 --samples-every 1000", "pixnerd/weights/digits/training.json", "pixnerd/weights/digits/metrics.json")
def load_digits():
    training, found = results("pixnerd/weights/digits/training.json"), results("pixnerd/weights/digits/metrics.json")
    assert training["command"] == "pixnerd-train --steps 4000 --lr 0.004 --samples-every 1000" and found["accuracy"] > found["judge_on_held_out"] - .02 and found["variety"] < .95
    return f"""Can a PixNerd that trains on a CPU draw digits worth looking at? {training['config']['steps']} steps of {training['config']['batch']} in {training['seconds']} s ({training['note']}).

{as_table(["samples", "read as asked", "held-out digits read right", "variety", "novelty"], [[found["samples"], f"{found['accuracy']:.1%}", f"{found['judge_on_held_out']:.1%}", f"{found['variety']:.2f}", f"{found['novelty']:.2f}"]])}

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
