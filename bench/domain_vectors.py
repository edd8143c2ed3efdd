"""What likeness foretells of who helps whom, and whether a learnt vector adds to it.

    python -m bench.domain_vectors OUT.json [--insteval FOLDER] [--fdu fdu_mtl.parquet]

Each table has 12 domains or more, a matrix A of what a domain gains when another one is trained with it,
and distances of domains: by the statistics of `likeness`, by each part of them alone, and by the learnt
vector of `domain2vec`, as means over three trainings of one joint MLP [64, 32].

- Planted: 12 domains with cosines of random directions in 3 dimensions, 3,000 train rows each, three
  tables. A: logistic regression on ids of users and items, tested on 3,000 other rows of a domain.
- FDU-MTL: 16 domains of reviews. 900 texts of a domain are there to train and to be likened, A is tested
  on all its others, about 1,100; 600 texts train, drawn three times. A: logistic regression on hashed
  words. Likeness reads 64 components of the words.
- InstEval: 14 departments, A from docs/pages/insteval.html, five folds.

Correlations are Spearman's over pairs, p by permutations of domains (`bench.pairs`). A is the mean of both
directions. Near domains that help each other give a correlation below 0. A run that was stopped goes on.
"""

import argparse
import json
import tempfile
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml
from scipy import sparse
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression

from bench.mdknet import measured
from bench.pairs import foretold, mantel, symmetric
from isthmus.config import load_config
from isthmus.data import Dataset
from isthmus.diagnosis.measures.domain2vec import learnt_vectors
from isthmus.diagnosis.measures.likeness import distances, domain_vectors
from isthmus.experiments import Training
from isthmus.experiments.outcome import build_to_train
from isthmus.metrics.formulas.auc import auc
from isthmus.sources.planted import planted
from isthmus.train import End, train

TABLES = (0, 1, 2)
SEEDS = (0, 1, 2)
DOMAINS, ROWS, ITEMS, USERS = 12, 6_000, 300, 500
HASHED, POOL, TEXTS, COMPONENTS = 2**14, 900, 600, 64
LEARNT = "domain2vec"
Rows = tuple[sparse.csr_matrix, np.ndarray]


def pairwise(train_rows: list[list[Rows]], test_rows: list[Rows]) -> np.ndarray:
    """A of a logistic regression, lines are targets; a mean over the draws of train rows."""
    n = len(test_rows)
    total = np.zeros((n, n))

    def score(model: LogisticRegression, target: int) -> float:
        x, y = test_rows[target]
        return float(auc(model.decision_function(x), y.astype(np.int64)))

    for draw in train_rows:
        alone = []
        for i, (x, y) in enumerate(draw):
            alone.append(score(LogisticRegression(max_iter=500).fit(x, y), i))
        for i, j in combinations(range(n), 2):
            x = sparse.vstack([draw[i][0], draw[j][0]])
            both = LogisticRegression(max_iter=500).fit(x, np.concatenate([draw[i][1], draw[j][1]]))
            total[i, j] += score(both, i) - alone[i]
            total[j, i] += score(both, j) - alone[j]
    return total / len(train_rows)


def likened(dataset: Dataset, given: dict[str, Any], names: list[str]) -> dict[str, np.ndarray]:
    """Distances of the named domains by each measure: means over trainings of the joint model."""
    place = [dataset.domain_names.index(name) for name in names]
    sums: dict[str, np.ndarray] = {}
    for seed in SEEDS:
        config = load_config(
            {
                "data": dataset.config.model_dump(mode="json"),
                "model": {"backbone": {"name": "mlp", "widths": [64, 32]}},
                "train": given | {"seed": seed, "device": "cpu", "looks_per_epoch": 4},
            }
        )
        training = Training(model=config.model, train=config.train)
        model = build_to_train(training, dataset, dataset.rows("train"))
        assert any(isinstance(event, End) for event in train(model, dataset, config.train))
        vectors = domain_vectors(model, dataset)
        of = {"likeness": distances(vectors)}
        for part, columns in vectors.parts.items():
            of[part] = distances(replace(vectors, parts={part: columns}))
        of[LEARNT] = distances(learnt_vectors(model, dataset, seed=seed))
        for name, matrix in of.items():
            sums[name] = sums.get(name, 0.0) + matrix[np.ix_(place, place)] / len(SEEDS)
    return sums


def of_planted(seed: int, cache: Path) -> dict[str, Any]:
    """One planted table."""
    direction = np.random.default_rng(100 + seed).normal(size=(DOMAINS, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    cosines = direction @ direction.T
    np.fill_diagonal(cosines, 1.0)
    made = planted(rows=ROWS, relation=cosines, seed=seed, items=ITEMS, users=USERS)
    table, names = made.table, list(made.names)
    first = np.zeros(table.num_rows, dtype=bool)
    domain = np.array([names.index(name) for name in table["domain"].to_pylist()])
    for d in range(DOMAINS):
        first[np.flatnonzero(domain == d)[: ROWS // 2]] = True
    label = table["label"].to_numpy().astype(np.float64)
    at = np.repeat(np.arange(table.num_rows), 2)
    ids = np.column_stack([table["user_id"].to_numpy(), USERS + table["item_id"].to_numpy()])
    shape = (table.num_rows, USERS + ITEMS)
    x = sparse.csr_matrix((np.ones(ids.size), (at, ids.ravel())), shape=shape)

    def rows(d: int, half: bool) -> Rows:
        chosen = (domain == d) & (first == half)
        return x[chosen], label[chosen]

    helped = pairwise(
        [[rows(d, True) for d in range(DOMAINS)]], [rows(d, False) for d in range(DOMAINS)]
    )
    data = made.config(seed=seed)
    dataset = Dataset.from_table(
        load_config({"data": data}).data, table.filter(pa.array(first)), cache=cache
    )
    given = {"batch_rows": 256, "epochs": 20, "patience": 2, "lr": 3e-3}
    told = likened(dataset, given, names)
    return {"A": helped, "truth": cosines, "told": told}


def of_fdu(path: Path, cache: Path) -> dict[str, Any]:
    """FDU-MTL."""
    table = pq.read_table(path)
    table = table.filter(pc.field("split") != "unlabel")
    domain = np.array(table["domain"].to_pylist())
    names = sorted(set(domain))
    label = table["label"].to_numpy().astype(np.float64)
    words = HashingVectorizer(n_features=HASHED, binary=True, alternate_sign=False)
    x = sparse.csr_matrix(words.transform(table["text"].to_pylist()))
    rng = np.random.default_rng(0)
    train_split = np.array(table["split"].to_pylist()) == "train"
    pool = {d: rng.permutation(np.flatnonzero((domain == d) & train_split))[:POOL] for d in names}
    every = np.concatenate(list(pool.values()))

    def rows(chosen: np.ndarray) -> Rows:
        return x[chosen], label[chosen]  # pyright: ignore[reportReturnType]

    draws = [[rows(rng.permutation(pool[d])[:TEXTS]) for d in names] for _ in SEEDS]
    others = [np.setdiff1d(np.flatnonzero(domain == d), pool[d]) for d in names]
    helped = pairwise(draws, [rows(rest) for rest in others])
    seen = TruncatedSVD(COMPONENTS, random_state=0).fit_transform(x[every])
    columns = {f"c{k}": seen[:, k] for k in range(COMPONENTS)}
    features: dict[str, Any] = {"domain": "categorical"} | dict.fromkeys(columns, "numeric")
    data = {
        "domain": "domain",
        "label": "label",
        "features": features,
        "split": {"by": "random", "fractions": [0.8, 0.1, 0.1], "seed": 0},
    }
    made = pa.table({"domain": domain[every], "label": label[every].astype(np.int8)} | columns)
    dataset = Dataset.from_table(load_config({"data": data}).data, made, cache=cache)
    given = {"batch_rows": 256, "epochs": 20, "patience": 2, "lr": 1e-3}
    return {"A": helped, "told": likened(dataset, given, names)}


def of_insteval(folder: Path, cache: Path) -> dict[str, Any]:
    """InstEval, with the matrix of its page."""
    raw = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    raw["data"]["table"] = str(folder / "insteval.parquet")
    dataset = Dataset.from_table(load_config({"data": raw["data"]}).data, cache=cache)
    names = list(dataset.domain_names[: dataset.n_domains])
    given = {"batch_rows": 1024, "epochs": 20, "patience": 2}
    return {"A": measured(names), "told": likened(dataset, given, names)}


def told(name: str, found: dict[str, Any]) -> None:
    """Print what foretells what on one table."""
    helped = symmetric(np.array(found["A"]))
    matrices = {key: np.array(matrix) for key, matrix in found["told"].items()}
    print(f"{name}: {len(helped)} domains")
    for key, matrix in matrices.items():
        rho, p = mantel(helped, matrix)
        line = f"  {key:24} Spearman {rho:+.2f}, p {p:.4f}"
        if "truth" in found:
            line += f"; with the cosine {mantel(np.array(found['truth']), matrix)[0]:+.2f}"
        print(line)
    learnt, plain = matrices[LEARNT], matrices["likeness"]
    parts = [m for key, m in matrices.items() if key not in (LEARNT, "likeness")]
    parts = [m for m in parts if np.ptp(m[np.triu_indices(len(m), 1)]) > 0]
    for beside, known in (("likeness", [plain]), ("its parts", parts)):
        rho, p = mantel(helped, learnt, known)
        print(
            f"  learnt beside {beside}: partial {rho:+.2f}, p {p:.4f}; unseen domain"
            f" {foretold(helped, known):+.2f} without, {foretold(helped, [*known, learnt]):+.2f} with"
        )
    rho, p = mantel(helped, plain, [learnt])
    print(f"  likeness beside learnt: partial {rho:+.2f}, p {p:.4f}")


def main() -> None:
    """Measure what is not there yet, write it, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("out", type=Path)
    parser.add_argument("--insteval", type=Path)
    parser.add_argument("--fdu", type=Path)
    asked = parser.parse_args()
    out: Path = asked.out
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder)
        studies: dict[str, Any] = {
            f"planted {seed}": lambda seed=seed: of_planted(seed, cache) for seed in TABLES
        }
        if asked.fdu is not None:
            studies["FDU-MTL"] = lambda: of_fdu(asked.fdu, cache)
        if asked.insteval is not None:
            studies["InstEval"] = lambda: of_insteval(asked.insteval, cache)
        for name, study in studies.items():
            if name not in found:
                found[name] = study()
                out.write_text(
                    json.dumps(found, default=lambda array: array.tolist()), encoding="utf-8"
                )
    for name, one in found.items():
        told(name, one)


if __name__ == "__main__":
    main()
