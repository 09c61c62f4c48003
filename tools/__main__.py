"""``python -m tools NAME [options]`` runs one program; without a name it lists them."""

import sys

import tools
from benchmarks import run_named

sys.exit(run_named(tools))
