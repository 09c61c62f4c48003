"""The page that a saved model has in a repository."""

from __future__ import annotations

from .pretrained import Pretrained


def card(model: Pretrained, repository: str, license: str | None) -> str:
    """A README with what the network is and how it is loaded, after the fields that the Hugging Face Hub reads.

    Example:
        >>> print(card(scoresde.load("digits"), "owner/digits", "mit")[:71])
        ---
        library_name: scoresde
        tags:
        - diffusion
        license: mit
        ---
        <BLANKLINE>
        # digits
    """
    config, labels = model.config, model.labels
    facts = {
        "process": "any affine process" if model.native is None else f"`{model.native!r}`",
        "prediction": f"`{config.prediction}`",
        "shape of a sample": f"`{model.event_shape}`",
        "architecture": f"`{config.architecture}`, {sum(p.numel() for p in model.net.parameters()):,} parameters",
        "labels": "" if labels is None else f"`{labels.name}`, 0 to {labels.count - 1}",
        "data": config.data,
        "command": config.command and f"`{config.command}`",
    }
    name = repository.partition("/")[2]
    return "\n".join(
        [
            *("---", "library_name: scoresde", "tags:", "- diffusion"),
            *([] if license is None else [f"license: {license}"]),
            *("---", "", f"# {name}", "", "A score network, saved by scoresde.", "", "| | |", "|---|---|"),
            *(f"| {key} | {_cell(value)} |" for key, value in facts.items() if value),
            *("", "```python", "import scoresde"),
            *(f'samples = scoresde.load("hf:{repository}").sample(4, seed=0).x', "```", ""),
        ]
    )


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
