"""The benchmarks are run from the repository, not installed: put its root on the path."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
