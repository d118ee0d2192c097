#!/usr/bin/env bash
# Fetches into `wheels/` what a host without a network may lack for gpu_session.sh.
#
#     bash benchmarks/gpu_wheels.sh [PYTHON_VERSION]    # 3.12
#
# Frameworks, NumPy, pandas and SciPy are the host's own.
set -euo pipefail
cd "$(dirname "$0")/.."
version=${1:-3.12}
mkdir -p wheels
rm -f wheels/*.whl
platforms=()
for glibc in 28 27 24 17 12 5; do platforms+=(--platform "manylinux_2_${glibc}_x86_64"); done
python3 -m pip download --quiet --no-deps --only-binary=:all: --dest wheels \
    --python-version "$version" --implementation cp --constraint constraints.txt \
    "${platforms[@]}" --platform manylinux2014_x86_64 --platform any \
    autograd click execnet hypothesis iniconfig markdown-it-py mdurl ml-dtypes nvidia-ml-py \
    packaging pluggy psutil pygments pytest pytest-timeout pytest-xdist rich sortedcontainers \
    threadpoolctl
ls -l wheels
