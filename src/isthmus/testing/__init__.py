"""The contracts of adapters, backbones and models, as checks to run on your own."""

from isthmus.testing.contracts import (
    Run,
    Subject,
    adapter_subject,
    backbone_subject,
    check_adapter,
    check_backbone,
    check_domains_are_apart,
    check_everything_learns,
    check_fresh_adapter_is_identity,
    check_hidden_units_differ,
    check_identity_is_left_smoothly,
    check_matches_formula,
    check_model,
    check_rows_do_not_see_neighbours,
    check_unknown_domain_is_answered,
    check_work_does_not_grow,
    model_subject,
    train_a_little,
)
from isthmus.testing.exported import check_exported_equals_eager
from isthmus.testing.mixtures import (
    check_experts_differ,
    check_mixed_batch_equals_domains,
    check_rows_move_their_own,
)

__all__ = [
    "Run",
    "Subject",
    "adapter_subject",
    "backbone_subject",
    "check_adapter",
    "check_backbone",
    "check_domains_are_apart",
    "check_everything_learns",
    "check_experts_differ",
    "check_exported_equals_eager",
    "check_fresh_adapter_is_identity",
    "check_hidden_units_differ",
    "check_identity_is_left_smoothly",
    "check_matches_formula",
    "check_mixed_batch_equals_domains",
    "check_model",
    "check_rows_do_not_see_neighbours",
    "check_rows_move_their_own",
    "check_unknown_domain_is_answered",
    "check_work_does_not_grow",
    "model_subject",
    "train_a_little",
]
