"""How results are shown: in one line at a prompt, as a table in a notebook."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from torch import Tensor


class Displayed:
    """An object with a summary, which is its one-line ``repr`` and its table in a notebook.

    Example:
        >>> class Point(Displayed):
        ...     def _summary(self):
        ...         return {"x": "1", "y": "2"}
        >>> Point()
        Point(x=1, y=2)
        >>> Point()._repr_html_()[:30]
        '<table><caption>Point</caption'
    """

    @abstractmethod
    def _summary(self) -> Mapping[str, str]:
        """What is shown, by its name."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value}' for name, value in self._summary().items())})"

    def _repr_html_(self) -> str:
        return table(type(self).__name__, [], self._summary().items())


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """An HTML table; the first entry of a row is its head.

    Example:
        >>> table("t", ["a", "b"], [("1 < 2", "3")])
        '<table><caption>t</caption><tr><th>a</th><th>b</th></tr><tr><th>1 &lt; 2</th><td>3</td></tr></table>'
    """
    lines = [[("th", entry) for entry in head]] if head else []
    lines += [[("td" if i else "th", entry) for i, entry in enumerate(row)] for row in rows]
    body = "".join(f"<tr>{''.join(f'<{tag}>{escape(text)}</{tag}>' for tag, text in line)}</tr>" for line in lines)
    return f"<table><caption>{escape(caption)}</caption>{body}</table>"


def span(values: Tensor, form: str = ".4g") -> str:
    """The range of some numbers, one if they are equal.

    Example:
        >>> import torch
        >>> (
        ...     span(torch.tensor([20, 20])),
        ...     span(torch.tensor([0.25, 0.5])),
        ...     span(torch.zeros(0)),
        ... )
        ('20', '0.25 to 0.5', 'none')
    """
    if not values.numel():
        return "none"
    low, high = (format(v.item(), form) for v in (values.min(), values.max()))
    return low if low == high else f"{low} to {high}"


def tally(names: Iterable[str]) -> str:
    """How often every name occurs.

    Example:
        >>> tally(["SUCCESS", "SUCCESS", "NON_FINITE"])
        '1 × NON_FINITE, 2 × SUCCESS'
    """
    return ", ".join(f"{count} × {name}" for name, count in sorted(Counter(names).items())) or "none"


def kind(x: Tensor) -> str:
    """The shape and the dtype of a tensor.

    Example:
        >>> import torch
        >>> kind(torch.zeros(2, 3))
        '(2, 3) float32'
    """
    return f"{tuple(x.shape)} {str(x.dtype).removeprefix('torch.')}"
