"""Benchmarks: what stitched data do for learners, and how fast everything is.

They are not installed; what they need is: `make`, or `pip install -e ".[bench]"`.

Modules import each other as `from benchmarks.data import LearnerData`. A file that is also run as a script puts the
repository root on the path first, so that `python benchmarks/run.py` works from any folder:

    if __package__ in (None, ""):
        sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
"""
