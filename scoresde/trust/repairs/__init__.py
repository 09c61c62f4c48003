"""The repairs that a diagnosis tries, one after the other.

Each is a class with `Repair.try_on`, which returns a `Rung`; all share the samples of one `Subject`.
"""
