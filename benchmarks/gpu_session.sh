#!/usr/bin/env bash
# The most that a quarter of an hour on a host with a GPU can say; see gpu_session.py.
#
#     bash benchmarks/gpu_session.sh OUT [--device gpu] [--seconds 570] [--tensorflow]
#
# PYTHON names another interpreter than python3. Packages that it lacks are taken from the folder
# `wheels`, where that is there (gpu_wheels.sh).
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}

lacking=()
for wheel in "$root"/wheels/*.whl; do
    name=$(basename "$wheel")
    "$python" -c 'import sys, importlib.metadata as m; m.version(sys.argv[1])' "${name%%-*}" \
        2>/dev/null || lacking+=("$wheel")
done
if [ -e "${lacking[0]:-}" ]; then
    site=$(mktemp -d)
    trap 'rm -rf "$site"' EXIT
    "$python" -m pip install --quiet --no-index --no-deps --no-compile --target "$site" \
        "${lacking[@]}"
    export PYTHONPATH=$site${PYTHONPATH:+:$PYTHONPATH}
fi
"$python" "$root/benchmarks/gpu_session.py" "$@"
