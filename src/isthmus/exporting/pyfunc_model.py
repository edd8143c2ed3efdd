"""What MLflow loads in place of a pickle: the bundle, read and checked as everywhere else.

``MLmodel`` of a package that `isthmus.exporting.pyfunc_package` wrote names this module. MLflow imports it
from the isthmus that is installed; the package itself holds no code.
"""

from typing import Any

import numpy as np
from jaxtyping import Float64

from isthmus.bundle import Bundle


class PyfuncModel:
    """A bundle behind MLflow's ``predict``."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle

    def predict(
        self, model_input: Any, params: dict[str, Any] | None = None
    ) -> Float64[np.ndarray, " rows"]:
        """Probabilities of a positive label, one a row; see `Bundle.score`.

        ``model_input``: a frame with the columns of the signature. ``params``: MLflow gives None, for
        the signature has none.
        """
        del params
        return self.bundle.score(model_input)


def _load_pyfunc(data_path: str) -> PyfuncModel:
    """Called by MLflow with the folder of the bundle. Raises BundleError where it is damaged."""
    return PyfuncModel(Bundle.load(data_path))
