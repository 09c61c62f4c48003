"""Programs that maintainers run; ``python -m tools`` lists them, and ``benchmarks/results`` has what they measured."""
