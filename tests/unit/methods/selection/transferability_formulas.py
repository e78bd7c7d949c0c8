"""The scores written out from their papers, slowly: loops over rows, classes and pairs, full matrices, no shared code."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["gbc", "h_score", "leep", "logme", "nce", "shrunken_h_score", "trans_rate"]

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


def logme(features: Floats, columns: Floats) -> float:
    """The fixed-point iteration of the paper for each target column ``[n, K]``, to the end."""
    count, width = features.shape
    found = []
    for column in columns.T:
        alpha, beta = 1.0, 1.0
        for _ in range(3000):
            inverse = np.linalg.inv(alpha * np.eye(width) + beta * features.T @ features)
            mean = beta * inverse @ features.T @ column
            gamma = width - alpha * np.trace(inverse)
            new_alpha = gamma / (mean @ mean)
            new_beta = (count - gamma) / ((features @ mean - column) @ (features @ mean - column))
            moved = abs(math.log(new_alpha / alpha)) + abs(math.log(new_beta / beta))
            alpha, beta = new_alpha, new_beta
            if moved < 1e-10:
                break
        matrix = alpha * np.eye(width) + beta * features.T @ features
        mean = beta * np.linalg.solve(matrix, features.T @ column)
        wrong = features @ mean - column
        evidence = width / 2 * math.log(alpha) + count / 2 * math.log(beta) - count / 2 * math.log(2 * math.pi)
        evidence -= beta / 2 * wrong @ wrong + alpha / 2 * mean @ mean + np.linalg.slogdet(matrix)[1] / 2
        found.append(evidence / count)
    return float(np.mean(found))


def h_score(features: Floats, labels: Labels) -> float:
    """Trace of the inverse covariance times the covariance of the rows replaced by their class means."""
    means = np.array([features[labels == label].mean(axis=0) for label in labels])
    return float(np.trace(np.linalg.pinv(np.cov(features.T, bias=True), rcond=1e-10) @ np.cov(means.T, bias=True)))


def shrunken_h_score(features: Floats, labels: Labels) -> float:
    """The same with scikit-learn's Ledoit-Wolf covariance."""
    from sklearn.covariance import LedoitWolf

    fitted = LedoitWolf().fit(features)
    means = np.array([features[labels == label].mean(axis=0) for label in labels])
    inverse = np.linalg.inv(fitted.covariance_)
    return float(np.trace(inverse @ np.cov(means.T, bias=True)) * (1 - fitted.shrinkage_))


def leep(probabilities: Floats, labels: Labels) -> float:
    """Row by row and class by class."""
    count, sources = probabilities.shape
    classes = int(labels.max()) + 1
    joint = [[sum(p[z] for p, y in zip(probabilities, labels) if y == c) / count for z in range(sources)] for c in range(classes)]
    total = 0.0
    for row, label in zip(probabilities, labels):
        likelihood = 0.0
        for z in range(sources):
            marginal = sum(joint[c][z] for c in range(classes))
            likelihood += row[z] * joint[label][z] / marginal if marginal else 0.0
        total += math.log(likelihood)
    return total / count


def nce(probabilities: Floats, labels: Labels) -> float:
    """Minus the entropy of the labels given the answers, summed over answers."""
    answers = probabilities.argmax(axis=1)
    entropy = 0.0
    for answer in set(answers.tolist()):
        inside = labels[answers == answer]
        for label in set(inside.tolist()):
            share = float(np.mean(inside == label))
            entropy -= len(inside) / len(labels) * share * math.log(share)
    return -entropy


def trans_rate(features: Floats, labels: Labels, *, equal: bool = False, distortion: float = 1e-4) -> float:
    """Log determinants by eigenvalues of full ``[D, D]`` matrices."""
    centred = features - features.mean(axis=0)

    def rate(rows: Floats) -> float:
        values = np.linalg.eigvalsh(np.eye(rows.shape[1]) + rows.T @ rows / (len(rows) * distortion))
        return 0.5 * float(np.log(values).sum())

    inner, present = 0.0, sorted(set(labels.tolist()))
    for label in present:
        share = 1 / len(present) if equal else float(np.mean(labels == label))
        inner += share * rate(centred[labels == label])
    return rate(centred) - inner


def gbc(features: Floats, labels: Labels, components: int, *, spherical: bool) -> float:
    """Full covariance matrices of Gaussians, and scikit-learn's principal components."""
    from sklearn.decomposition import PCA

    projected = PCA(n_components=components, svd_solver="full").fit_transform(features)
    gaussians = []
    for label in sorted(set(labels.tolist())):
        rows = projected[labels == label]
        variance = rows.var(axis=0)
        gaussians.append((rows.mean(axis=0), np.diag(np.full(components, variance.mean()) if spherical else variance)))
    total = 0.0
    for i, (mean, own) in enumerate(gaussians):
        for j, (other_mean, other) in enumerate(gaussians):
            if i != j:
                both = (own + other) / 2
                apart = (mean - other_mean) @ np.linalg.inv(both) @ (mean - other_mean) / 8
                spread = 0.5 * math.log(np.linalg.det(both) / math.sqrt(np.linalg.det(own) * np.linalg.det(other)))
                total += math.exp(-(apart + spread))
    return -total
