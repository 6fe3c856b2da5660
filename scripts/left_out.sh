#!/bin/sh
# Options of pytest that skip the tests which this machine cannot run. The output names each of them.
set -eu

for python in python3.12 python3.13 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[23]*/bin/python; do
    "$python" -c 'import sys, venv; sys.exit(sys.version_info[:2] not in ((3, 12), (3, 13)))' 2>/dev/null && exit 0
done
echo "NOT RUN: the tests beside a real Home Assistant, which needs a Python 3.12 or 3.13 (and none was found)." >&2
echo "-mnot(home_assistant)"
