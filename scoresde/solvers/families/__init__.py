"""What the methods of a family share: frames, tableaux, memories, particles; no method of `scoresde.methods`."""
