"""These files run beside verl, in an environment of their own (`run.sh`); elsewhere they rest."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("verl") else ["*.py"]
