"""The run folder of an extension: bundle with its proof, scores of the new domain's rows, report.

bundle/          the extended bundle; its manifest holds the proof
probe.parquet    raw rows that the bundles from before and after score alike
extension.json   what was added, how it was trained, the comparison, the proof
scores/          logits of the new domain's validation and test rows
report.md        the new domain's test rows, beside the answer that they had before
"""

import json
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from jaxtyping import Float64

from isthmus.bundle import Bundle
from isthmus.data.store.split import SPLITS, SplitName
from isthmus.disk import sha256
from isthmus.extending.later_run import later_profile, scored_rows, write_state
from isthmus.extending.learning import Learnt
from isthmus.extending.new_table import EncodedTable, NewTable, encode
from isthmus.extending.proof import Probe, probe_of, same_bits, same_tensors, told
from isthmus.metrics import Comparison, ScoredRows, evaluate_rows
from isthmus.metrics import compare as compare_rows
from isthmus.printable import printable
from isthmus.report import to_markdown
from isthmus.run import Run
from isthmus.run.folder import RunFolder
from isthmus.run.guard.gains import GUARD_FILE
from isthmus.run.scores import write_scores
from isthmus.train import score_rows
from isthmus.version import VERSION

CONTENT, PROBE = "extension.json", "probe.parquet"
STAYS = "the unknown domain's parameters stay"


@dataclass(frozen=True, slots=True, eq=False)
class ExtensionFolder:
    """All that goes into the folder. ``run``: that was extended. ``before``, ``after``: the bundles."""

    run: Run
    domain: str
    before: Bundle
    after: Bundle
    table: NewTable
    encoded: EncodedTable
    learnt: Learnt

    def write(
        self, folder: RunFolder, name: str, begun: float
    ) -> tuple[dict[str, Any], Comparison]:
        """Fill the folder, once the proof holds. ``begun``: when the work began, by `time.perf_counter`.

        Gives what ``extension.json`` holds, and the comparison with the answer from before. Raises RunError
        where the proof fails.
        """
        proof = self._proof(folder)
        record = {
            "what": "extend",
            "domain": self.domain,
            "isthmus": VERSION,
            "rows": {split: len(self.encoded.rows(split)) for split in SPLITS},
            "new_ids": self._new_ids(),
            "proof": proof,
        }
        self._bundle((*self.before.history, record)).save(folder.bundle)
        folder.scores.mkdir()
        comparison = self._scores(folder, name)
        content = {
            **record,
            "run": self.run.name,
            "training": self._training(),
            "seconds": round(time.perf_counter() - begun, 3),
            "test": comparison.to_dict(),
        }
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
        (folder.path / CONTENT).write_text(text + "\n", encoding="utf-8")
        end, seconds = self.learnt.end, content["seconds"]
        write_state(
            folder, self.run, self.after, self.table, end, seconds=seconds, method="own_rows"
        )
        if (guard := self.run.path / GUARD_FILE).exists():
            shutil.copy(guard, folder.path)
        return content, comparison

    def _bundle(self, history: tuple[Mapping[str, Any], ...]) -> Bundle:
        after, scored = self.after, self._scored("validation", self.run.name)
        return Bundle(
            config=after.config,
            encoder=after.encoder,
            model=after.model,
            calibration=after.calibration,
            parts=after.parts,
            routes=after.routes,
            profile=later_profile(self.before, after, self.encoded, scored),
            history=history,
        )

    def _proof(self, folder: RunFolder) -> dict[str, Any]:
        """Compare the bundle as it is read from the disk with the one from before."""
        self.after.save(folder.bundle)
        after = Bundle.load(folder.bundle)
        probe: Probe = probe_of(self.table, self.before, after.encoder)
        path = folder.path / PROBE
        pq.write_table(probe.table, path, compression="zstd")
        tensors = same_tensors(self.before, after)
        logits = same_bits(self.before.logits(path), after.logits(path))
        return {"probe_sha256": sha256(path), **told(probe, logits, tensors)}

    def _new_ids(self) -> dict[str, int]:
        old = self.before.encoder.vocabularies
        found = {n: one.rows - old[n].rows for n, one in self.after.encoder.vocabularies.items()}
        return {name: more for name, more in found.items() if more}

    def _training(self) -> dict[str, Any]:
        learnt = self.learnt
        content = {
            "kept": learnt.kept,
            "validation_logloss_before": learnt.start,
            "validation_logloss_learnt": learnt.best,
        }
        if (end := learnt.end) is not None:
            content |= {"steps": end.step, "best_step": end.best.step, "stopped": end.stopped}
        return content

    def _scores(self, folder: RunFolder, name: str) -> Comparison:
        """Write the scores of the validation and test rows; compare the test rows with before."""
        for split in ("validation", "test"):
            scored = self._scored(split, name)
            write_scores(folder.scores / f"{split}.parquet", scored)
        was = [
            self.before.logits_of(encode(self.before.encoder, piece).batch())
            for piece in self.table.pieces_of("test")
        ]
        before = self._rows("test", np.concatenate(was), f"{self.run.name}, unknown domain")
        folder.write_report(self._report(scored, comparison := compare_rows(before, scored)))
        return comparison

    def _scored(self, split: SplitName, source: str) -> ScoredRows:
        """The rows of a split, by the bundle from after."""
        rows, new = self.encoded.rows(split), len(self.after.domains)
        logits = self.after.calibrated(score_rows(self.after.model, rows), np.full(len(rows), new))
        return self._rows(split, logits, source)

    def _rows(
        self, split: SplitName, logits: Float64[np.ndarray, " rows"], source: str
    ) -> ScoredRows:
        """The rows of a split, all of the new domain."""
        scored = scored_rows(self.table, self.encoded, split, logits, source)
        return replace(scored, domain=np.ones_like(scored.domain), names=(self.domain,))

    def _report(self, scored: ScoredRows, comparison: Comparison) -> str:
        parts = [to_markdown(evaluate_rows(scored)), "", to_markdown(comparison), ""]
        return "\n".join([*parts, *self._facts()])

    def _facts(self) -> Iterator[str]:
        learnt = self.learnt
        yield f"- Extended: run {printable(self.run.name)} by domain {printable(repr(self.domain))}."
        if learnt.end is not None:
            went = "is kept" if learnt.kept else f"is not better beyond chance: {STAYS}"
            yield (
                f"- Validation logloss, not calibrated: {learnt.start:.4f} by the unknown domain's"
                f" parameters, {learnt.best:.4f} by what was learnt, which {went}."
            )
        more = ", ".join(f"{n:,} of {name}" for name, n in self._new_ids().items()) or "none"
        yield f"- New ids: {printable(more)}."
        yield "- Other domains: every score of the probe has the same bits as before."


def summary(content: Mapping[str, Any]) -> str:
    """What ``extension.json`` says, in two lines."""
    proof, training = content["proof"], content["training"]
    lost = "steps" in training and not training["kept"]
    kept = f"; what was learnt is not better beyond chance: {STAYS}" if lost else ""
    return (
        f"domain {content['domain']!r} added in {content['seconds']:.1f} s{kept}\n"
        f"other domains: the same bits on {proof['probe_rows']:,} probe rows, of which"
        f" {proof['probe_rows_with_new_ids']:,} carry new ids, and in {len(proof['tensors']):,} tensors"
    )
