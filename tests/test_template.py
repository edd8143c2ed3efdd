"""Text written into a config reads back the same."""

import yaml
from hypothesis import given
from hypothesis import strategies as st

from isthmus.inspect.template import model_and_train, scalar


@given(st.text())
def test_any_text_survives_yaml(text):
    assert yaml.safe_load(f"{{{scalar(text)}: [{scalar(text)}]}} # comment") == {text: [text]}


def test_the_starting_sections_are_the_documented_ones():
    config = yaml.safe_load(model_and_train(widths=(8, 4), dropout=0.0))
    assert config == {
        "model": {
            "backbone": {"name": "mlp", "widths": [8, 4], "dropout": 0.0},
            "towers": "shared",
            "adapter": {"name": "hamur", "bottleneck": 32, "rank": 8},
            "calibration": "none",
        },
        "train": {
            "batch_rows": 4096,
            "epochs": 20,
            "lr": 1.0e-3,
            "embedding_l2": 5.0e-5,
            "embedding_update": "auto",
            "patience": 2,
            "monitor": "auc_pooled",
            "seed": 0,
        },
    }
