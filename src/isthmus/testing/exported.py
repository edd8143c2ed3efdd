"""Contract 7: the exported graph equals eager, whatever the number of rows and of list items."""

from collections.abc import Callable

import torch

from isthmus.data.batch import Batch
from isthmus.exporting.graph_file import TRACED, tensors, traced
from isthmus.exporting.served_graph import ServedGraph, graph_inputs
from isthmus.models import AbstractModel
from isthmus.testing.subject import hold

ROWS = (1, 7, 513)
FEW, MANY = 3, 1000


def check_exported_equals_eager(
    make: Callable[[int], AbstractModel],
    batch: Callable[[int], Batch],
    *,
    n_domains: tuple[int, ...] = (FEW, MANY),
) -> None:
    """Contract 7: a traced model gives, for 1, 7 and 513 rows, what it gives itself in eval.

    ``make(n_domains)``: the model. ``batch(n_domains)``: example rows that hold several domains. The
    model's parameters are moved a little first, so that nothing is at a start of zero. The shape
    checks of jaxtyping cannot be traced: run this where they are off.
    """
    for many in n_domains:
        model, rows = make(many).eval(), batch(many)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
        inputs = graph_inputs(model.fields, rows)
        graph = ServedGraph(model, inputs, calibration=None, negative_rate=1.0)
        at = torch.arange(max(ROWS)) % rows.rows
        program = traced(graph, inputs, rows.take(at[:TRACED])).module()
        for count in ROWS:
            some = rows.take(at[:count])
            with torch.no_grad():
                found, expected = program(*tensors(inputs, some))[0], model(some)
            away = float((found - expected).abs().max())
            hold(
                away <= 1e-5 * max(1.0, float(expected.abs().max())),
                f"contract 7: with {many} domains, the exported graph is {away:.2g} from eager on"
                f" {count} rows",
            )
