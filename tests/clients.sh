#!/bin/sh
# Reads a dataset written here with other packages, each in an environment of its own (they pin what we cannot).
# Usage: tests/clients.sh [python of the development environment] [folder for the environments]
set -eu
python=${1:-.venv/bin/python}
envs=${2:-.venv/clients}
export MINARI_STITCH_CLIENT_DATASETS="$(mktemp -d)"
trap 'rm -rf "$MINARI_STITCH_CLIENT_DATASETS"' EXIT

MINARI_DATASETS_PATH="$MINARI_STITCH_CLIENT_DATASETS" PYTHONPATH=".:tests" \
  "$python" -c "from test_clients import make_dataset, make_ogbench; make_dataset(); make_ogbench()"

check() { # name, test, packages...
  name=$1 test=$2 && shift 2
  if [ ! -x "$envs/$name/bin/pytest" ]; then
    "$python" -m venv "$envs/$name"
    "$envs/$name/bin/pip" install --quiet torch==2.13.0 # first, so that nothing brings another build
    "$envs/$name/bin/pip" install --quiet "$@" torch==2.13.0 minari[hdf5]==0.5.4 pillow==13.0.0 pytest==9.2.0
  fi
  "$envs/$name/bin/python" -m pytest -q -c /dev/null --rootdir . -k "$test or recovers" tests/test_clients.py
}

check d3rlpy d3rlpy d3rlpy==2.8.1
# TorchRL 0.11.0 to 0.14.1 reads zeros from every Minari dataset: it fills its copy, then makes an empty one.
check torchrl torchrl torchrl==0.10.1 tensordict==0.10.0
check ogbench ogbench ".[test]" ogbench==1.2.2 mujoco==4.0.0 gymnasium==1.4.0
"$envs/ogbench/bin/python" -m pytest -q -c /dev/null --rootdir . -k "real or own" tests/bench/test_ogbench.py
"$envs/ogbench/bin/python" -m pytest -q -c /dev/null --rootdir . tests/sim/test_ogbench_point.py
