"What training would hold, counted on fake tensors: nothing is allocated, but it takes a while."

from pixnerd.benchmarks import training_memory
from pixnerd.model import PRESETS


def test_the_field_costs_at_most_a_twentieth_of_the_memory_of_training():
    "XL/16 at batch 32, everything counted, against the same transformer with a linear head."
    config = PRESETS["XL/16"].config
    total = {variant: sum(training_memory(config, variant, 32).values()) for variant in ("lean", "linear")}
    assert total["lean"] <= 1.05 * total["linear"], total
