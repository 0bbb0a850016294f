#!/usr/bin/env bash
# Checks the plug-in against the real verl, on the processor and in an environment of its own: verl
# needs an older transformers than ours. `run.sh record` renews what the other tests run on.
set -euo pipefail
cd "$(dirname "$0")/../.."
env=.venv/verl
if [ ! -e "$env/ready" ]; then
  "${PYTHON:-python3}" -m venv "$env"
  "$env/bin/pip" install --quiet --disable-pip-version-check \
    --requirement tests/verl/requirements.txt --editable .
  touch "$env/ready"
fi
export OMP_NUM_THREADS=1 PYTHONPATH=tests/verl
if [ "${1:-}" = record ]; then
  exec "$env/bin/python" tests/verl/record.py
fi
exec "$env/bin/python" -m pytest tests/verl/check_verl.py tests/credit/test_ride.py \
  --override-ini python_files="check_*.py test_*.py" --override-ini filterwarnings=default \
  --override-ini addopts= --import-mode=importlib --quiet "$@"
