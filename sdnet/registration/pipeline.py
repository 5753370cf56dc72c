"""Registration from coarse to fine: candidates, coarse and fine tie points, the model, the verdict."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from sdnet.errors import InputError
from sdnet.measures import MEASURES
from sdnet.registration.config import (
    COARSE,
    FINE,
    LAST,
    NETWORK_COARSE,
    NETWORK_FINE,
    Level,
    Model,
    RegisterConfig,
)
from sdnet.registration.fitting.joint import fit_jointly
from sdnet.registration.fitting.piecewise import with_local_shifts
from sdnet.registration.fitting.robust import LEAST_POINTS, agreeing, residuals, sample_affine
from sdnet.registration.fitting.trust import (
    BEYOND_DOUBT,
    LEAST_EVIDENCE,
    Verdict,
    evidence,
    judge,
    why_too_coarse,
)
from sdnet.registration.images import Image
from sdnet.registration.matching.features import Descriptors, Features, Templates
from sdnet.registration.matching.search import apart, compare
from sdnet.registration.matching.surfaces import Surfaces
from sdnet.registration.matching.wide import wide_candidates
from sdnet.registration.tie_points import TiePoints
from sdnet.registration.transform import IDENTITY, Transform

if TYPE_CHECKING:
    from sdnet.registration.matching.network import Network

_CANDIDATES = 3
_FOLDS = 4
# For `piecewise`: the largest shift by relief, and the number of points.
_RELIEF_PX, _RELIEF_POINTS = 24, 256


@dataclass(frozen=True)
class Registration:
    """The result of a registration.

    transform: optical point to SAR point, or None when too few tie points agree to fit one.
    ties: the last tie points (without a transform, the coarse ones); inliers: bool [N], those that agree.
    held_out_px: float64 [N], distance of each tie point from a fit that did not use it.
    verdict: whether the transform can be trusted, and why not.
    seconds: wall time.
    """

    transform: Transform | None
    ties: TiePoints
    inliers: np.ndarray
    held_out_px: np.ndarray
    verdict: Verdict
    seconds: float


@dataclass(frozen=True)
class _Coarse:
    transform: Transform
    ties: TiePoints
    inliers: np.ndarray
    evidence: float


def register_images(
    optical: Image,
    sar: Image,
    config: RegisterConfig,
    net: "Network | None" = None,
    initial: Transform = IDENTITY,
) -> Registration:
    """Estimate the transform from the optical image to the SAR image.

    initial: the transform to start from, such as from georeferences. Equal input gives an equal result, with
    any number of threads.
    Raises InputError when the method needs a network and there is none.
    """
    begun = time.perf_counter()
    if net is not None and config.adapt:
        net = net.adapted(optical, sar)
    passes = _passes(config, net)
    too_coarse = why_too_coarse(optical.shape, initial)
    if too_coarse:
        return _refused(begun, too_coarse)
    starts: Iterable[Transform] = [initial]
    if config.search == "wide":
        wide = Templates(MEASURES[config.measure]) if config.method != "network" else passes.coarse[0][0]
        starts = wide_candidates(optical, sar, initial, wide, _CANDIDATES)
    found = []
    for start in starts:
        coarse = _coarse(optical, sar, start, passes.coarse)
        if coarse is not None:
            found.append(coarse)
            if coarse.evidence > BEYOND_DOUBT:
                break  # no other candidate is tried
    if not found:
        return _refused(begun, "too few coarse tie points")
    best = max(found, key=lambda coarse: coarse.evidence)
    if best.evidence < LEAST_EVIDENCE:
        reason = "coarse tie points agree no better than by chance"
        reason += f" (evidence {best.evidence:.1f} < {LEAST_EVIDENCE})"
        return _refused(begun, reason, best)
    return _finish(optical, sar, best, passes, config, initial, begun)


@dataclass(frozen=True)
class _Passes:
    coarse: list[tuple[Features, Level]]
    fine: list[tuple[Features, Level]]


def _passes(config: RegisterConfig, net: "Network | None") -> _Passes:
    templates = Templates(MEASURES[config.measure])
    if config.method == "templates":
        return _Passes([(templates, COARSE)], [(templates, FINE), (templates, LAST)])
    if net is None:
        raise InputError(f"method {config.method} needs a network; give a checkpoint, or use templates")
    network = Descriptors(net)
    if config.method == "network":
        return _Passes([(network, NETWORK_COARSE)], [(network, NETWORK_FINE)] * 2)
    return _Passes([(templates, COARSE), (network, NETWORK_COARSE)], [(templates, FINE), (templates, LAST)])


def _coarse(
    optical: Image, sar: Image, start: Transform, passes: list[tuple[Features, Level]]
) -> _Coarse | None:
    """Tie points of all features together, and the affine transform with which most of them agree."""
    found = [compare(optical, sar, start, level, features) for features, level in passes]
    peaks = [one.peaks(apart(features))[0] for one, (features, _) in zip(found, passes, strict=True)]
    ties = peaks[0] if len(peaks) == 1 else peaks[0].joined(peaks[1])
    level = passes[0][1]
    transform = sample_affine(ties, level.tolerance_px)
    if transform is None:
        return None
    inliers = residuals(ties, transform) <= level.tolerance_px
    count = int(np.count_nonzero(inliers))
    found_evidence = evidence(len(ties), count, level.tolerance_px, level.radius_px)
    return _Coarse(fit_jointly(found[0], transform, "affine") or transform, ties, inliers, found_evidence)


def _finish(
    optical: Image,
    sar: Image,
    coarse: _Coarse,
    passes: _Passes,
    config: RegisterConfig,
    initial: Transform,
    begun: float,
) -> Registration:
    transform = coarse.transform
    for index, (features, level) in enumerate(passes.fine):
        surfaces = compare(optical, sar, transform, level, features)
        last = index == len(passes.fine) - 1
        found = fit_jointly(surfaces, transform, config.model if last else "affine")
        if found is None:
            return _refused(begun, "too few places to compare", coarse)
        transform = found
    chain, start = [surfaces], transform
    if config.model == "piecewise":
        chain = _relief(optical, sar, transform, features, level)
        transform = _refit(chain, start, config.model, optical.shape) or start
    ties, inside = chain[-1].peaks(apart(features))
    if len(ties) < LEAST_POINTS:
        return _refused(begun, "too few fine tie points", coarse)
    fit = agreeing(ties, transform, level.tolerance_px)
    seen = [one.take(inside) for one in chain]
    held_out_px = _held_out(seen, ties, start, config.model, optical.shape)
    verdict = judge(coarse.evidence, fit, optical.shape, initial, wide=config.search == "wide")
    return Registration(fit.transform, ties, fit.inliers, held_out_px, verdict, time.perf_counter() - begun)


def _relief(optical: Image, sar: Image, start: Transform, features: Features, level: Level) -> list[Surfaces]:
    """Surfaces in wide windows around an affine transform, then in narrow ones around the refined one."""
    wide = replace(level, radius_px=_RELIEF_PX, points=_RELIEF_POINTS)
    far = compare(optical, sar, start, wide, features)
    if not len(far):
        return [far]
    first = with_local_shifts(far, start, optical.shape)
    near = compare(optical, sar, first, level, features, far.optical)
    rows = {tuple(point): row for row, point in enumerate(far.optical)}
    return [far.take(np.array([rows[tuple(point)] for point in near.optical], int)), near]


def _refit(chain: list[Surfaces], start: Transform, model: Model, shape: tuple[int, int]) -> Transform | None:
    """The last fit of a model to surfaces; None for too few of them."""
    if model != "piecewise":
        return fit_jointly(chain[-1], start, model)
    if len(chain[-1]) < LEAST_POINTS:
        return None
    for surfaces in chain:
        start = with_local_shifts(surfaces, start, shape)
    return start


def _held_out(
    chain: list[Surfaces], ties: TiePoints, start: Transform, model: Model, shape: tuple[int, int]
) -> np.ndarray:
    """Residuals of each quarter of the tie points from a fit to the other three: float64 [N]."""
    found = np.full(len(ties), np.nan)
    fold = np.arange(len(ties)) % _FOLDS
    for part in range(_FOLDS):
        seen = fold != part
        other = _refit([one.take(seen) for one in chain], start, model, shape)
        if other is not None:
            found[~seen] = residuals(ties.take(~seen), other)
    return found


_NO_TIES = TiePoints(np.empty((0, 2)), np.empty((0, 2)), np.empty(0), np.empty(0))


def _refused(begun: float, reason: str, coarse: _Coarse | None = None) -> Registration:
    """No transform; the coarse tie points, if there are any, show what went wrong."""
    ties, inliers, found = _NO_TIES, np.empty(0, bool), 0.0
    if coarse is not None:
        ties, inliers, found = coarse.ties, coarse.inliers, coarse.evidence
    unknown, verdict = np.full(len(ties), np.nan), Verdict(False, found, reason)
    return Registration(None, ties, inliers, unknown, verdict, time.perf_counter() - begun)
