"""Errors of torch that a network raises, and what to do about them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import Tensor

from .errors import ScoreFnError, dtypes_differ, out_of_memory

# What torch says where a table has no row for an index.
_BEYOND = ("index out of range in self", "is out of bounds for dimension")


@contextlib.contextmanager
def explained(x: object, shape: object) -> Iterator[None]:
    """What to do about errors of torch that a score function, or what is around it, raises: when memory runs out, a
    note on torch's own; when a network has another dtype than it receives, looks up what its table does not have,
    was compiled for a single backward pass, or was made in inference mode, an error with torch's as its cause."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if out_of_memory(error) and hasattr(error, "add_note"):
            full = tuple(x.shape) if isinstance(x, Tensor) else shape
            error.add_note(f"It ran out of memory with shape {full}; use a smaller batch.")
        if dtypes_differ(error):
            reason = str(error).partition("\n")[0]
            raise ScoreFnError(
                "The network in the score function seems to have another dtype than the state or the context that it "
                f"receives ({reason}). Give the module itself, as "
                "ScoreModel(net, sde, …), which calls an nn.Module in its own dtype, or cast inside, as "
                "lambda x, t: net(x.to(dtype), t.to(dtype)).float(); context must have the network's dtype."
            ) from error
        if "donated buffers" in str(error):
            raise ScoreFnError(
                "The network in the score function was compiled for a single backward pass, and this takes several; "
                "give the module without torch.compile, or compile it after torch._functorch.config.donated_buffer = "
                "False."
            ) from error
        if "Inference tensors cannot be saved for backward" in str(error):
            raise ScoreFnError(
                "The network in the score function was made, or its weights were loaded, within "
                "torch.inference_mode(), and this needs a gradient; make or load it outside."
            ) from error
        raise
    except IndexError as error:
        if not any(text in str(error) for text in _BEYOND):
            raise
        raise ScoreFnError(
            f"A table has no row for an index ({error}), most likely that of an embedding in the network: labels in "
            "`context` count from 0, and a network that takes the index of a level is "
            'ScoreModel(net, chain.sde(), "noise", time_input="index", chain=chain).'
        ) from error
