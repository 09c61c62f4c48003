"""``python -m scoresde.training digits --out DIR --seed 0``: the shipped network; ``scoresde train`` trains others."""

from .digits import main

if __name__ == "__main__":
    main()
