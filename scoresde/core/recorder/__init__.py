"""The steps of a solve, recorded before the first: a plan that repeats them, and the densities of what they draw."""
