#!/bin/sh
# An environment of its own for RecBole 1.2.1 (2025), which does not run on today's pandas, NumPy and setuptools.
# Usage: sh benchmarks/recbole/setup.sh DIR
set -eu
test -x "$1/bin/python" || python3.11 -m venv "$1"
"$1/bin/pip" install -q torch==2.13.0
"$1/bin/pip" install -q recbole==1.2.1
# Repairs: NumPy 2 dropped np.float_, pandas 3 dropped chained assignment, Ray 2.6 needs pkg_resources.
"$1/bin/pip" install -q numpy==1.26.4 pandas==2.1.4 scipy==1.12.0 "setuptools<80"
