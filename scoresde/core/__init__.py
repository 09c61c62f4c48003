"""The core: one loop, and what it needs. It imports none of the rooms that are built on it."""
