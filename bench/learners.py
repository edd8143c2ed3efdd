"""The diagnosis of learners that are not ours, on digits, Office-Caltech10 and FDU-MTL.

    python bench/learners.py --data FOLDER [--only digits,office,fdu] [--out runs/learners]

FOLDER holds digits_mnist_usps.parquet, office_caltech10_surf.parquet and fdu_mtl.parquet. The
questions are those of Zhang, Hayes and Kanan (arXiv:2107.05445): does capacity, grouping or
weighting move what domains give and take? Splits, margins and seeds were fixed before any result
was seen. Give the same ``--out`` again, and finished trainings are taken from it.
"""

import argparse
import hashlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import nn

import isthmus
from isthmus.diagnosis import DomainRows

SEEDS = 3
MARGIN = 0.01  # of accuracy, and as a share of the logloss
BATCH = 64
PATIENCE = 5
MOST_PASSES = 100
WIDTHS = (4, 16, 64)
STEP_SHARE = 0.3  # of the learning rate, in a second stage
LOOKS = 8
SHARES = (0.4, 0.2)  # train and validation, where the data has no split of its own
HASHED = 2**14
MOST_TEXTS = 600  # train texts of a domain of FDU-MTL, of about 1,280

Pair = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Net:
    """A small network of ten classes: convolutions on pictures of 16 x 16, dense on counts.

    ``heads``: one head for each domain, over one body, or one head for all. ``weights``: how the
    rows of a domain weigh in the loss: all rows alike, all domains alike, or at random a step.
    """

    names: tuple[str, ...]
    width: int = 16
    heads: bool = False
    weights: str = "rows"
    lr: float = 2e-3

    def fingerprint(self) -> str:
        return f"net 1 {self.names} {self.width} {self.heads} {self.weights} {self.lr}"

    def count(self, rows: Pair) -> int:
        return len(rows[1])

    def build(self, inputs: int) -> nn.Module:
        """Give body and heads; every state has all heads."""
        if inputs == 256:
            body = nn.Sequential(
                nn.Unflatten(1, (1, 16, 16)),
                nn.Conv2d(1, self.width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
                nn.Conv2d(self.width, self.width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
                nn.Flatten(),
            )  # fmt: skip
            out = 16 * self.width
        else:
            body = nn.Sequential(nn.Linear(inputs, self.width), nn.ReLU(), nn.Dropout(0.3))
            out = self.width
        many = len(self.names) if self.heads else 1
        heads = nn.ModuleList([nn.Linear(out, 10) for _ in range(many)])
        return nn.ModuleDict({"body": body, "heads": heads})

    def train(
        self,
        rows: Mapping[str, Pair],
        *,
        watch: Mapping[str, Pair],
        seed: int,
        start: Mapping[str, np.ndarray] | None,
        steps: int | None,
    ) -> dict[str, np.ndarray]:
        torch.manual_seed(seed)
        x, y, head, weight = self._joined(rows)
        seen = self._joined(watch)
        net = self.build(x.shape[1])
        if start is not None:
            net.load_state_dict({name: torch.from_numpy(np.array(a)) for name, a in start.items()})
        lr = self.lr if steps is None else self.lr * STEP_SHARE
        optimiser = torch.optim.Adam(net.parameters(), lr=lr)
        passes = max(1, len(y) // BATCH)
        every = max(1, passes // 2) if steps is None else max(1, steps // LOOKS)
        most = MOST_PASSES * passes if steps is None else steps
        best, kept, since = np.inf, {}, 0
        order = torch.randperm(len(y))
        for step in range(1, most + 1):
            place = (step - 1) % passes * BATCH
            if place == 0:
                order = torch.randperm(len(y))
            at = order[place : place + BATCH]
            scale = weight[at]
            if self.weights == "random":
                scale = torch.rand(len(self.names))[head[at]] * 2
            net.train()
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(
                self._logits(net, x[at], head[at]), y[at], reduction="none"
            )
            (loss * scale).mean().backward()
            optimiser.step()
            if step % every == 0:
                net.eval()
                with torch.no_grad():
                    found = nn.functional.cross_entropy(
                        self._logits(net, seen[0], seen[2]), seen[1]
                    ).item()
                since += 1
                if found < best:
                    best, since = found, 0
                    kept = {n: t.detach().numpy().copy() for n, t in net.state_dict().items()}
                if steps is None and since >= 2 * PATIENCE:
                    break
        return kept

    def _joined(self, rows: Mapping[str, Pair]) -> tuple[torch.Tensor, ...]:
        x = torch.from_numpy(np.concatenate([part[0] for part in rows.values()]))
        y = torch.from_numpy(np.concatenate([part[1] for part in rows.values()]))
        numbers = [np.full(len(part[1]), self.names.index(name)) for name, part in rows.items()]
        many = len(y) / len(rows)
        weight = [
            np.full(len(part[1]), many / len(part[1]) if self.weights == "domains" else 1.0)
            for part in rows.values()
        ]
        return (
            x,
            y,
            torch.from_numpy(np.concatenate(numbers)),
            torch.from_numpy(np.concatenate(weight)),
        )

    def _logits(self, net: Any, x: torch.Tensor, head: torch.Tensor) -> torch.Tensor:
        hidden = net["body"](x)
        if not self.heads:
            return net["heads"][0](hidden)
        every = torch.stack([one(hidden) for one in net["heads"]], 1)
        return every[torch.arange(len(x)), head]

    def score(self, state: Mapping[str, np.ndarray], domain: str, rows: Pair) -> np.ndarray:
        net = self.build(rows[0].shape[1])
        net.load_state_dict({name: torch.from_numpy(np.array(a)) for name, a in state.items()})
        net.eval()
        head = torch.full((len(rows[1]),), self.names.index(domain))
        with torch.no_grad():
            logits = self._logits(net, torch.from_numpy(rows[0]), head)
        return torch.softmax(logits.double(), 1).numpy()

    def second_stage_steps(self, rows: Pair) -> int:
        return max(LOOKS, 2 * len(rows[1]) // BATCH)

    def at_widths(self) -> dict[int, "Net"]:
        return {width: replace(self, width=width) for width in WIDTHS}

    def weightings(self) -> dict[str, "Net"]:
        return {name: replace(self, weights=name) for name in ("domains", "random")}


class OneHead(Net):
    """The same with one head: it can score rows of a domain that it has not seen."""

    def score_unseen(self, state: Mapping[str, np.ndarray], rows: Pair) -> np.ndarray:
        return self.score(state, self.names[0], rows)


@dataclass(frozen=True)
class HashedText:
    """Logistic regression on hashed words, by stochastic gradients of scikit-learn.

    Rows are pairs: a sparse matrix and labels. Rounds of one pass; patience on the validation rows.
    """

    alpha: float = 1e-4

    def fingerprint(self) -> str:
        return f"hashed text 1 {self.alpha}"

    def count(self, rows: Any) -> int:
        return rows[0].shape[0]

    def identify(self, rows: Any) -> str:
        digest = hashlib.blake2b(digest_size=16)
        for part in (rows[0].data, rows[0].indices, rows[0].indptr, rows[1]):
            digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()

    def train(
        self,
        rows: Mapping[str, Any],
        *,
        watch: Mapping[str, Any],
        seed: int,
        start: Mapping[str, np.ndarray] | None,
        steps: int | None,
    ) -> dict[str, np.ndarray]:
        from scipy.sparse import vstack
        from sklearn.linear_model import SGDClassifier

        x, y = vstack([part[0] for part in rows.values()]).tocsr(), _labels(rows)
        seen, truth = vstack([part[0] for part in watch.values()]).tocsr(), _labels(watch)
        model = SGDClassifier(
            loss="log_loss", alpha=self.alpha, learning_rate="constant",
            eta0=0.5 if steps is None else 0.5 * STEP_SHARE,
        )  # fmt: skip
        draw = np.random.default_rng(seed)
        model.partial_fit(x[:1], y[:1], classes=np.array([0, 1]))
        model.coef_ = np.zeros_like(model.coef_) if start is None else np.array(start["w"])
        model.intercept_ = np.zeros(1) if start is None else np.array(start["b"])
        best, since, taken, kept = np.inf, 0, 0, {}
        # A step is 100 rows: a round is a tenth of a pass at most.
        size = max(1, steps // LOOKS) if steps is not None else max(1, len(y) // 400)
        order = draw.permutation(len(y))
        while taken < (steps if steps is not None else MOST_PASSES * len(y) // 100):
            at = np.take(order, np.arange(taken * 100, (taken + size) * 100), mode="wrap")
            model.partial_fit(x[at], y[at])
            taken, since = taken + size, since + 1
            z = seen @ model.coef_[0] + model.intercept_[0]
            found = float(np.logaddexp(0, np.where(truth == 1, -z, z)).mean())
            if found < best:
                best, since = found, 0
                kept = {"w": model.coef_.copy(), "b": model.intercept_.copy()}
            if steps is None and since >= 4 * PATIENCE:
                break
        return kept

    def score(self, state: Mapping[str, np.ndarray], domain: str, rows: Any) -> np.ndarray:  # noqa: ARG002
        return 1 / (1 + np.exp(-np.clip(rows[0] @ state["w"][0] + state["b"][0], -30, 30)))

    def score_unseen(self, state: Mapping[str, np.ndarray], rows: Any) -> np.ndarray:
        return self.score(state, "", rows)

    def second_stage_steps(self, rows: Any) -> int:
        return max(LOOKS, 2 * rows[0].shape[0] // 100)


def _labels(rows: Mapping[str, Any]) -> np.ndarray:
    return np.concatenate([part[1] for part in rows.values()])


def pictures(path: Path, column: str) -> dict[str, DomainRows]:
    """Vectors of ten classes by domain, split at random within each domain with seed 0."""
    table = pq.read_table(path)
    x = np.array(table[column].to_pylist(), dtype=np.float32)
    if column == "surf":  # counts: shares of a row, then standard by column
        x = np.log1p(x)
        x = ((x - x.mean(0)) / (x.std(0) + 1e-6)).astype(np.float32)
    y = np.asarray(table["label"]).astype(np.int64)
    y -= y.min()
    domain = np.asarray(table["domain"])
    found, rng = {}, np.random.default_rng(0)
    for name in sorted(set(domain.tolist())):
        at = rng.permutation(np.flatnonzero(domain == name))
        ends = (np.cumsum(SHARES) * len(at)).astype(int)
        parts = [(x[part], y[part]) for part in np.split(at, ends)]
        found[name] = _domain(parts)
    return found


def texts(path: Path) -> dict[str, DomainRows]:
    """FDU-MTL on its own split; a fifth of the train texts validates, and 600 at most train."""
    from sklearn.feature_extraction.text import HashingVectorizer

    table = pq.read_table(path, filters=[("split", "!=", "unlabel")])
    words = HashingVectorizer(
        n_features=HASHED, alternate_sign=False, token_pattern=r"\S+", norm="l2"
    )
    x: Any = words.transform(table["text"].to_pylist())
    y = np.asarray(table["label"]).astype(np.int64)
    domain, split = np.asarray(table["domain"]), np.asarray(table["split"])
    found, rng = {}, np.random.default_rng(0)
    for name in sorted(set(domain.tolist())):
        at = rng.permutation(np.flatnonzero((domain == name) & (split == "train")))
        held = len(at) // 5
        test = np.flatnonzero((domain == name) & (split == "test"))
        places = (at[held : held + MOST_TEXTS], at[:held], test)
        found[name] = _domain([(x[part], y[part]) for part in places])
    return found


def _domain(parts: list[Any]) -> DomainRows:
    train, validation, test = parts
    return DomainRows(
        train=train,
        validation=validation,
        test=test,
        labels=test[1],
        validation_labels=validation[1],
    )


def studies(data: Path) -> dict[str, tuple[Any, Any, str]]:
    """Each study: how its rows are read, the learner, and the level."""
    digits, office = ("mnist", "usps"), ("amazon", "caltech", "dslr", "webcam")
    surf = data / "office_caltech10_surf.parquet"
    numbers = data / "digits_mnist_usps.parquet"
    return {
        "digits": (lambda: pictures(numbers, "pixels"), OneHead(digits), "standard"),
        "digits-heads": (lambda: pictures(numbers, "pixels"), Net(digits, heads=True), "full"),
        "office": (lambda: pictures(surf, "surf"), OneHead(office), "full"),
        "office-heads": (lambda: pictures(surf, "surf"), Net(office, heads=True), "full"),
        "fdu": (lambda: texts(data / "fdu_mtl.parquet"), HashedText(), "quick"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/learners"))
    parser.add_argument("--only", default="")
    parser.add_argument("--level", default="")
    given = parser.parse_args()
    torch.set_num_threads(1)
    wanted = [name for name in given.only.split(",") if name]
    for name, (rows, learner, level) in studies(given.data).items():
        if wanted and name not in wanted:
            continue
        found = isthmus.diagnose(
            learner=learner,
            domains=rows(),
            out=given.out / name,
            level=given.level or level,
            seeds=SEEDS,
            metrics=["accuracy", "logloss"],
            margin=MARGIN,
        )
        sys.stdout.write(f"# {name}\n\n{found}\n\n")


if __name__ == "__main__":
    main()
