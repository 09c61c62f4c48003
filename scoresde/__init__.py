"""scoresde solves the SDEs and ODEs of score-based generative models."""
