"""The tests of the package, and what they share."""
