"""``python -m benchmarks NAME [options]`` runs one benchmark; without a name it lists them."""

import sys

import benchmarks

sys.exit(benchmarks.run_named(benchmarks))
