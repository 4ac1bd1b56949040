"Pixel neural field diffusion: a notebook-driven research workbench."
__version__ = "0.1.0"

from pixnerd.checkpoints import from_official, from_pretrained, to_official  # also gives `PixNerd` its `from_pretrained`
from pixnerd.model import PRESETS, PixNerd, PixNerdConfig
from pixnerd.samplers import denoise, make_noise, sample
