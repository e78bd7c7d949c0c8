"""Per-task weight gradients of linear maps and convolutions, kept as factors.

The weight gradient of a layer with inputs ``X [N, I]`` and output gradients ``D [N, O]`` is ``D.T @ X``. With ``N < I`` rows its
factors are smaller than itself, and what balancing needs follows from them without ever forming it, because ``X`` is the same
for all tasks:

- inner products of tasks ``i`` and ``j``: ``<D_i.T X, D_j.T X> = <D_i, (X X.T) D_j>``; a bias adds 1 to ``X X.T``;
- a weighted sum: ``sum_t w_t D_t.T X = (sum_t w_t D_t).T X``, one product for all tasks.

A convolution is the same with the patches of its input as rows. A pass per task then only has to send gradients through the
activations, which is half of a backward pass. The inner products of gradients through factors are also how torchjd's autogram
and influence functions save memory; results differ from those of the dense matrix by rounding only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node
from torch.nn import functional as F

from graftwork.methods.optimization.task_graph import Root

__all__ = ["FactoredLayer", "find_layers"]


@dataclass(slots=True)
class FactoredLayer:
    """A layer of the graph whose weight is used once, with rows of its input."""

    node: Node
    """The layer's node in the graph; the gradient of its output is what a pass has to give."""
    weight: nn.Parameter
    bias: nn.Parameter | None
    source: Tensor
    """Input as the graph keeps it: ``[N, I]``, or ``[B, C, H, W]`` of a convolution."""
    unfold: dict[str, Any] | None
    """Arguments of ``unfold`` for a convolution; None for a linear map."""
    size: int
    """Numbers per task: ``N * O``."""

    @property
    def edge(self) -> GradientEdge:
        """Where the output's gradient can be asked for."""
        return GradientEdge(self.node, 0)

    def rows(self) -> Tensor:
        """Return the inputs as rows, ``[N, I]``."""
        source = self.source.detach()
        if self.unfold is None:
            return source
        # [B, I, positions] to [B * positions, I].
        return F.unfold(source, **self.unfold).transpose(1, 2).flatten(0, 1)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and width of the output's gradient, ``(N, O)``."""
        return self.size // len(self.weight), len(self.weight)

    def write(self, row: Tensor, gradient: Tensor | None) -> None:
        """Copy the output's gradient of one task into ``row [N, O]``; None counts as zero."""
        if gradient is None:
            row.zero_()
        elif self.unfold is None:
            row.copy_(gradient)
        else:
            # [B, O, H, W] to [B, H * W, O], the order in which `rows` lists the patches.
            row.view(len(gradient), -1, row.shape[1]).copy_(gradient.flatten(2).transpose(1, 2))

    def inner_products(self, outputs: Tensor) -> Tensor:
        """Return ``[T, T]`` in float64 from stacked output gradients ``[T, N, O]``."""
        # `kernel` is [N, N]: small, because N < I is why the layer was chosen.
        rows = self.rows().to(outputs.dtype)
        kernel = rows @ rows.T
        if self.bias is not None:
            # A bias is a weight whose input is always 1.
            kernel += 1.0
        left, right = outputs.flatten(1), torch.matmul(kernel, outputs).flatten(1)
        total = torch.zeros(len(outputs), len(outputs), dtype=torch.float64, device=outputs.device)
        for some, others in zip(left.split(CHUNK, dim=1), right.split(CHUNK, dim=1), strict=True):
            total += some @ others.T
        # Symmetric in exact arithmetic only; eigenvalue solvers read one triangle and would depend on which.
        return (total + total.T) / 2

    def weighted_sum(self, outputs: Tensor, weights: Tensor) -> list[tuple[nn.Parameter, Tensor]]:
        """Return the weighted sum of the tasks' gradients for weight and bias."""
        # [N, O]
        mixed = torch.tensordot(weights.to(outputs.dtype), outputs, dims=1)
        total = (mixed.T @ self.rows().to(outputs.dtype)).view_as(self.weight)
        found = [(self.weight, total.to(self.weight.dtype))]
        return found if self.bias is None else [*found, (self.bias, mixed.sum(dim=0).to(self.bias.dtype))]


CHUNK = 65536
"""Numbers per partial product, so that rounding errors do not pile up."""


def find_layers(roots: Sequence[Root | None], shared: Sequence[nn.Parameter]) -> list[FactoredLayer]:
    """Return the layers that are worth keeping as factors: their weight is one of ``shared``, used once, and larger than its
    factors.

    Layers are recognised in the autograd graph, so that any model will do; what is not recognised is simply not returned.
    """
    wanted = {id(parameter) for parameter in shared}
    uses: dict[int, int] = {}
    candidates: list[Node] = []
    pending = [root.node if isinstance(root, GradientEdge) else root.grad_fn for root in roots if root is not None]
    seen = set(pending)
    while pending:
        node = pending.pop()
        if node is None:
            continue
        if node.name() in READERS:
            candidates.append(node)
        for child, _ in node.next_functions:
            if child is None:
                continue
            variable = getattr(child, "variable", None)
            if variable is not None:
                # Counted by edges: a weight used twice has cross terms that the factors of one use lack.
                uses[id(variable)] = uses.get(id(variable), 0) + 1
            elif child.name() == "TBackward0":  # its one parameter is used as often as it is
                leaf = _leaf(child.next_functions[0][0])
                if leaf is not None:
                    # The parameter is counted above when the transpose is visited: only further readers are added here.
                    uses[id(leaf)] = uses.get(id(leaf), 0) + (child in seen)
            if child not in seen:
                seen.add(child)
                pending.append(child)
    layers = []
    for node in candidates:
        layer = READERS[node.name()](node)
        if layer is None or id(layer.weight) not in wanted or uses[id(layer.weight)] != 1:
            continue
        # A bias that is frozen or used elsewhere would get a wrong or unwanted gradient.
        if layer.bias is not None and (id(layer.bias) not in wanted or uses[id(layer.bias)] != 1):
            continue
        # Factors cost N * O numbers for each task, the gradient I * O.
        if layer.size < layer.weight.numel():
            layers.append(layer)
    return layers


def _leaf(node: Node | None) -> Any:
    return getattr(node, "variable", None)


def _linear(node: Any) -> FactoredLayer | None:
    """Read ``addmm(bias, input, weight.T)`` or ``mm(input, weight.T)``."""
    has_bias = node.name() == "AddmmBackward0"
    edges = [edge for edge, _ in node.next_functions]
    transposed = edges[-1]
    if transposed is None or transposed.name() != "TBackward0":
        return None
    weight, bias = _leaf(transposed.next_functions[0][0]), _leaf(edges[0]) if has_bias else None
    # A frozen bias has no edge (None). An edge without a leaf is a computed bias, which nothing here can fill.
    if weight is None or (has_bias and edges[0] is not None and bias is None):
        return None
    # torch.addmm scales its terms; nn.Linear never does.
    if has_bias and (node._saved_alpha != 1 or node._saved_beta != 1):
        return None
    # Not saved where the weight needs no gradient.
    source = node._saved_mat1 if has_bias else node._saved_self
    if source is None:
        return None
    return FactoredLayer(node, weight, bias, source, None, len(source) * len(weight))


def _convolution(node: Any) -> FactoredLayer | None:
    """Read a plain two-dimensional convolution."""
    # Edges in the order of the arguments: input, weight, bias.
    _, weight_edge, bias_edge = (edge for edge, _ in node.next_functions)
    weight, bias = _leaf(weight_edge), _leaf(bias_edge)
    if weight is None or weight.dim() != 4 or node._saved_transposed or node._saved_groups != 1:
        return None
    if bias_edge is not None and bias is None:
        return None
    source = node._saved_input
    kernel, stride = weight.shape[2:], node._saved_stride
    padding, dilation = node._saved_padding, node._saved_dilation
    positions = len(source)
    for size, width, step, pad, spread in zip(source.shape[2:], kernel, stride, padding, dilation, strict=True):
        # The output size of a convolution, as in the documentation of nn.Conv2d.
        positions *= (size + 2 * pad - spread * (width - 1) - 1) // step + 1
    unfold = {"kernel_size": tuple(kernel), "stride": tuple(stride), "padding": tuple(padding), "dilation": tuple(dilation)}
    return FactoredLayer(node, weight, bias, source, unfold, positions * len(weight))


READERS = {"AddmmBackward0": _linear, "MmBackward0": _linear, "ConvolutionBackward0": _convolution}
"""How to read the nodes that are recognised."""
