"A model small enough for hundreds of runs, for the tests of explorers."

import torch

from pixnerd import PixNerd


def make_tiny(**changes) -> PixNerd:
    "A tiny digits model whose last layer is not zero, as it is in a fresh one."
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = PixNerd.from_preset("digits", **(dict(width=16, heads=2, depth=2, field_width=8) | changes))
        if not changes.get("head"): torch.nn.init.normal_(model.decoder.out.linear.weight, std=.3)
    return model.eval()
