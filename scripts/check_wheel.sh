#!/usr/bin/env bash
# Install a wheel into an empty environment, and run the demo there.
#   scripts/check_wheel.sh dist/clrelkt-X.Y.Z-py3-none-any.whl
set -euo pipefail
wheel=$(realpath "$1")
constraints=$(realpath "$(dirname "$0")/../constraints.txt")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install --quiet --constraint "$constraints" "$wheel"
cd "$scratch"
unset PYTHONPATH
"$scratch/venv/bin/clrelkt" --version
"$scratch/venv/bin/clrelkt" demo -o runs/demo
"$scratch/venv/bin/python" -c '
import pathlib, clrelkt
assert pathlib.Path(clrelkt.__file__).is_relative_to(pathlib.Path.cwd()), clrelkt.__file__
assert (pathlib.Path(clrelkt.__file__).parent / "py.typed").is_file()
'
echo "$(basename "$wheel"): installs and runs"
