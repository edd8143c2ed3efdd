"""prune(): a finished run made smaller, as a run of its own, with the proof that all other scores stayed."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from isthmus.bundle import Bundle
from isthmus.data import Table
from isthmus.data.tables import Source
from isthmus.disk import whole_folder, writing
from isthmus.errors import RunError
from isthmus.extending.later_run import free_target
from isthmus.extending.proof import drawn_rows, same_bits
from isthmus.extending.pruning.without_domain import pruned_bundle, renumbered, scored_without
from isthmus.extending.pruning.without_ids import bundle_without_ids, kept_ids, with_old_ids
from isthmus.metrics import evaluate_rows
from isthmus.printable import printable
from isthmus.report import to_markdown
from isthmus.run import Run
from isthmus.run.folder import RunFolder
from isthmus.run.scores import write_scores
from isthmus.version import VERSION

CONTENT = "pruning.json"


@dataclass(frozen=True, slots=True)
class Pruned:
    """A run without one of its domains, or without unused ids. ``content``: what ``pruning.json`` holds."""

    run: Run
    content: Mapping[str, Any]

    def __str__(self) -> str:
        proof = f"the same bits on {self.content['proof']['probe_rows']:,} probe rows"
        if "domain" in self.content:
            return (
                f"domain {self.content['domain']!r} removed; the other domains:"
                f" {', '.join(self.run.bundle.domains)}, {proof}"
            )
        return f"{_told_ids(self.content)}; all other ids: {proof}"


def prune(
    run: str | Path | Run,
    *,
    domain: str | None = None,
    unused: Source | Table | None = None,
    least: int = 1,
    out: str | Path | None = None,
) -> Pruned:
    """Write a finished run without one of its domains, or without unused ids, as a run of its own.

    ``domain``: its name. Rows of the domain are scored as rows of a domain that was never trained. Scores of
    the other domains, and of rows of none, keep every bit, for batches of the same rows.

    ``unused``: a newer table, in place of a domain. An id that stands in fewer than ``least`` places of its rows
    goes, whatever the domain of the row; its rows leave the embedding tables. A value without an id is scored as one
    that was never seen. Rows that have no such value keep every bit. The domain's own column and columns
    of hashes stay. The new run has no scores of the old test rows, since some of them may differ now.

    ``out``: the new run folder, which must not exist; ``RUN-without-DOMAIN`` or ``RUN-used`` by default.

    Raises RunError for a domain that is not there, for the last one, for a table whose rows use every id, or
    none of a column, and where the folder cannot be written; SchemaError for a table of other columns;
    BundleError for a bundle that cannot be pruned.
    """
    if (domain is None) == (unused is None):
        raise RunError("prune must be told a domain or a table of newer rows, and not both")
    opened = run if isinstance(run, Run) else Run.open(run)
    target = free_target(opened, out, "used" if domain is None else f"without-{domain}")
    before = opened.bundle
    if domain is not None:
        after, content = _without_domain(before, domain)
    else:
        after, content = _without_ids(before, unused, least)
    after.history = (*before.history, content)
    with writing("run folder", target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with whole_folder(target) as folder:
            _write(RunFolder(folder), opened, after, content, target.name)
    return Pruned(Run.open(target), content)


def _without_domain(before: Bundle, domain: str) -> tuple[Bundle, dict[str, Any]]:
    after = pruned_bundle(before, domain)
    batch = drawn_rows(before.encoder)
    number = before.domains.index(domain) + 1
    batch = batch.take(torch.nonzero(batch.domain != number).squeeze(1))
    logits = same_bits(before.logits_of(batch), after.logits_of(renumbered(batch, number)))
    return after, _content({"domain": domain}, batch.rows, logits)


def _without_ids(before: Bundle, unused: Any, least: int) -> tuple[Bundle, dict[str, Any]]:
    kept, rows = kept_ids(before.encoder, unused, least)
    after = bundle_without_ids(before, kept)
    batch = drawn_rows(after.encoder)
    old = with_old_ids(batch, after.encoder.fields, kept)
    logits = same_bits(before.logits_of(old), after.logits_of(batch))
    known = {name: before.encoder.vocabularies[name].rows - 1 for name in kept}
    what = {
        "unused": {"rows": rows, "least": least},
        "ids": {
            name: {"before": known[name], "dropped": known[name] - len(ids) + 1}
            for name, ids in kept.items()
        },
        "parameters": {
            when: bundle.model.parameter_report().total
            for when, bundle in (("before", before), ("after", after))
        },
    }
    return after, _content(what, batch.rows, logits)


def _content(what: Mapping[str, Any], rows: int, logits: str) -> dict[str, Any]:
    proof = {"probe_rows": rows, "logits_sha256": logits}
    return {"what": "prune", **what, "isthmus": VERSION, "proof": proof}


def _told_ids(content: Mapping[str, Any]) -> str:
    least, rows = content["unused"]["least"], content["unused"]["rows"]
    dropped = ", ".join(
        f"{one['dropped']:,} of {one['before']:,} of {name!r}"
        for name, one in content["ids"].items()
    )
    times = "once" if least == 1 else f"{least:,} times"
    return f"ids that {rows:,} rows do not have at least {times} removed: {dropped}"


def _write(
    folder: RunFolder, run: Run, after: Bundle, content: Mapping[str, Any], name: str
) -> None:
    after.save(folder.bundle)
    (folder.path / CONTENT).write_text(
        json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    folder.scores.mkdir()
    state = replace(run.state, guard="")
    if (domain := content.get("domain")) is not None:
        removed = f"domain {printable(repr(domain))}"
        names = tuple(one for one in state.domains if one != domain)
        state = replace(state, domains=names, n_domains=len(after.domains))
        evaluated = _write_scores(folder, run, domain, name)
    else:
        removed = printable(_told_ids(content))
        state = replace(state, parameters=content["parameters"]["after"])
        evaluated = ""
    folder.write_report(f"{evaluated}- Removed: {removed} of run {printable(run.name)}.")
    data = after.encoder.config.model_copy(update={"table": run.config.data.table})
    folder.begin(run.config.model_copy(update={"data": data}), state)


def _write_scores(folder: RunFolder, run: Run, domain: str, name: str) -> str:
    """Write the scores of the other domains' rows; give the table of the test rows, or nothing."""
    text = ""
    for split in ("validation", "test"):
        if not RunFolder(run.path).has_scores(split):
            continue
        scored = scored_without(run.scored(split), domain, name)
        if not len(scored):
            continue
        write_scores(folder.scores / f"{split}.parquet", scored)
        if split == "test":
            text = f"{to_markdown(evaluate_rows(scored))}\n\n"
    return text
