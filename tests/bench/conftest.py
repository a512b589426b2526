"""The benchmarks are run from the repository, not installed: put its root on the path, and this folder's helpers.

This folder is a package (`bench`), so that its tests may have the names of tests one folder up.
"""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE)]
