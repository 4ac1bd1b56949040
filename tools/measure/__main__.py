"""Make results files and shipped models: `python tools/measure NAME …`, and `python tools/measure NAME --help`.

Each name is a file beside this one with a `main(parser, arguments)`. Results go to nbs/results/ or pixnerd/weights/,
and say which command, seed and hardware made them; pages read their numbers from there.
"""

import argparse
import sys
from importlib import import_module

COMMANDS = {
    "studies": "train the arms of the studies, with several seeds: an hour and a half on two cores",
    "samplers": "the shipped digits model by solver, steps and guidance: ten minutes",
    "scenes": "the shipped text model by skill, guidance, steps and size: ten minutes",
    "benchmarks": "time and memory against the published arithmetic: ten minutes on a quiet machine, or a GPU",
    "reader": "train the classifier of digits that alignment and evaluation look through",
    "ship": "put a trained run into the package, with what made it and how good it is",
}


def main(arguments: list[str]) -> int | None:
    name, *rest = arguments or ["--help"]
    if name in COMMANDS:
        work, raw = import_module(name), argparse.RawDescriptionHelpFormatter
        parser = argparse.ArgumentParser(f"tools/measure {name}", description=work.__doc__, formatter_class=raw)
        return work.main(parser, rest)
    print("usage: python tools/measure NAME [options]\n", *(f"  {k:12s}{v}" for k, v in COMMANDS.items()), sep="\n")
    if name in ("-h", "--help"): return 0
    print(f"\ntools/measure: error: NAME must be one of {', '.join(COMMANDS)}, got {name!r}", file=sys.stderr)
    return 2


if __name__ == "__main__": sys.exit(main(sys.argv[1:]))
