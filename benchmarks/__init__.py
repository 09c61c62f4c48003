"""Programs that measure scoresde; ``python -m benchmarks`` lists them, ``benchmarks/results`` has what they printed."""
