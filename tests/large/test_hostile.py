"A thousand configurations and a thousand checkpoints made to break the loader, in 4 GiB. Run by `make test-large`."

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("seed", [1, 2])
def test_a_thousand_hostile_files_of_each_kind(seed):
    script = Path(__file__).parents[1]/"hostile.py"
    told = json.loads(subprocess.run([sys.executable, script, "1000", str(seed)], capture_output=True, check=True).stdout)
    print(told)
    assert not any(kind["wrong"] for kind in told.values()), told
