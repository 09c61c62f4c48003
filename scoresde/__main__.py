"""``python -m scoresde`` is the command line."""

from .cli import app

app()
