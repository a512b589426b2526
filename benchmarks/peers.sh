#!/bin/sh
# Makes d3rlpy's environment (it pins gymnasium 1.0.0, which we cannot use) and runs peers.py.
# Usage: benchmarks/peers.sh [options of peers.py]; PYTHON and PEERS name other interpreters and folders.
set -eu
python=${PYTHON:-.venv/bin/python}
peers=${PEERS:-.venv/peers}
if [ ! -e "$peers/.installed" ]; then
  "$python" -m venv "$peers"
  "$peers/bin/pip" install --quiet torch==2.13.0 # first, so that nothing brings another build
  "$peers/bin/pip" install --quiet torch==2.13.0 d3rlpy==2.8.1 "minari[hdf5]==0.5.4" pillow==13.0.0 \
    "gymnasium[mujoco]" mujoco==4.0.0
  touch "$peers/.installed"
fi
exec "$python" benchmarks/peers.py --python "$peers/bin/python" "$@"
