"""The three published losses of SDNet, each term by itself and unweighted, and the losses of a global batch.

Source: sections on loss in IEEE TGRS 2022, document 9770793.
Shape letters: B batch of one slice, G global batch, D descriptor length (128).
"""

import math

import mindspore as ms
from mindspore import Tensor, ops

from sdnet.config import Recipe
from sdnet.network.model import Outputs

# (student, teacher) of each self-distillation term, as named in OUTPUTS.
DISTILLED = (
    ("low_opt", "opt"),
    ("low_sar", "sar"),
    ("low_sar", "opt"),
    ("low_opt", "sar"),
    ("opt", "sar"),
    ("low_opt", "low_sar"),
)
TERMS = (
    "match",
    *(f"distill_{student}__{teacher}" for student, teacher in DISTILLED),
    "recon_opt",
    "recon_sar",
)
NEIGHBOURS = 8  # of a descriptor in its modality, for the second-order similarity
NEVER_NEAREST = (
    10.0  # added to distances that must not be chosen as negatives; unit vectors are 2 apart at most
)
DUPLICATE = 0.008  # a negative nearer than this shows the same ground


def loss_names(recipe: Recipe) -> tuple[str, ...]:
    """What a step reports: every term, and at the end the weighted total."""
    if recipe.objective == "published":
        return (*TERMS, "total")
    return (recipe.objective, *(("second_order",) if recipe.second_order_weight else ()), "total")


def match_loss(anchor_BD: Tensor, positive_BD: Tensor, margin: float) -> Tensor:
    """Triplet margin loss against the hardest negative of the batch: scalar, 0 or more."""
    positive_B, negative_B = hardest(anchor_BD, positive_BD)
    return ops.relu(margin + positive_B - negative_B).mean()


def hardest(anchor_BD: Tensor, positive_BD: Tensor) -> tuple[Tensor, Tensor]:
    """The distance of each pair, and that of its hardest negative: [B] each.

    The negative of pair i is the nearest other descriptor to either of its two sides, near
    duplicates left out (Mishchuk et al., "Working hard to know your neighbor's margins", 2017).
    """
    squared = (anchor_BD * anchor_BD).sum(axis=1, keepdims=True)
    squared = squared + (positive_BD * positive_BD).sum(axis=1, keepdims=True).T
    products = ops.matmul(anchor_BD, positive_BD.T)
    distance_BB = ops.sqrt(squared - 2.0 * products + 1e-6) + 1e-8
    diagonal_BB = ops.eye(distance_BB.shape[0], distance_BB.shape[0], ms.float32)
    positive_B = (distance_BB * diagonal_BB).sum(axis=1)
    barred_BB = distance_BB + NEVER_NEAREST * diagonal_BB
    barred_BB = barred_BB + NEVER_NEAREST * ops.cast(barred_BB < DUPLICATE, ms.float32)
    return positive_B, ops.minimum(barred_BB.min(axis=1), barred_BB.min(axis=0))


def log_similarity(descriptors_BD: Tensor, temperature: float) -> Tensor:
    """Log of how each descriptor's likeness is spread over the batch: [B, B], each row sums to 1.

    Likeness is 0.5 (1 + cosine), softened by the temperature and a softmax over the batch.
    """
    likeness_BB = 0.5 * (1.0 + ops.matmul(descriptors_BD, descriptors_BD.T))
    return ops.log_softmax(likeness_BB / temperature, axis=0).T


def distill_loss(log_student_BB: Tensor, log_teacher_BB: Tensor) -> Tensor:
    """Mean entry of teacher * (log teacher - log student): scalar. Gradients reach both sides."""
    return (ops.exp(log_teacher_BB) * (log_teacher_BB - log_student_BB)).mean()


def mean_square(reconstruction: Tensor, image: Tensor) -> Tensor:
    """Mean squared error over all pixels: scalar, unit of the normalised image squared."""
    error = reconstruction - image
    return (error * error).mean()


def terms(outputs: Outputs, opt_B1HW: Tensor, sar_B1HW: Tensor, recipe: Recipe) -> tuple[Tensor, ...]:
    """Every loss term of one batch, unweighted scalars, in the order of `TERMS`.

    opt_B1HW, sar_B1HW: the normalised patches with which the reconstructions are compared.
    """
    opt, sar, low_opt, low_sar, recon_opt, recon_sar = outputs
    logs = {
        "opt": log_similarity(opt, recipe.temperature),
        "sar": log_similarity(sar, recipe.temperature),
        "low_opt": log_similarity(low_opt, recipe.temperature),
        "low_sar": log_similarity(low_sar, recipe.temperature),
    }
    distilled = [distill_loss(logs[student], logs[teacher]) for student, teacher in DISTILLED]
    return (
        match_loss(opt, sar, recipe.margin),
        *distilled,
        mean_square(recon_opt, opt_B1HW),
        mean_square(recon_sar, sar_B1HW),
    )


def weights(recipe: Recipe) -> tuple[float, ...]:
    """The weight of each term in the total, in the order of `TERMS`."""
    reconstruction = (recipe.reconstruction_weight,) * 2
    return (recipe.match_weight, *(recipe.distill_weight,) * len(DISTILLED), *reconstruction)


def contrastive_loss(opt_GD: Tensor, sar_GD: Tensor, temperature: float) -> Tensor:
    """Symmetric InfoNCE: scalar, 0 or more.

    For each patch, the cross entropy of choosing its partner among the G patches of the other
    modality, by a softmax of cosines divided by the temperature; the mean over both modalities.
    """
    logits_GG = ops.matmul(opt_GD, sar_GD.T) / temperature
    partners_GG = ops.eye(logits_GG.shape[0], logits_GG.shape[0], ms.float32)
    log_chosen_GG = ops.log_softmax(logits_GG, axis=0) + ops.log_softmax(logits_GG, axis=1)
    return -0.5 * (log_chosen_GG * partners_GG).sum() / logits_GG.shape[0]


def hybrid_scale(hybrid: float) -> float:
    """The largest slope of `distance + hybrid / 2 * distance ** 2` by the angle of two unit vectors.

    With the angle a, the distance is 2 sin(a / 2) and the slope cos(a / 2) + hybrid sin(a). It is largest where
    its derivative is 0, which is 2 hybrid s ** 2 + s / 2 - hybrid = 0 for s = sin(a / 2).
    """
    if hybrid == 0:
        return 1.0
    sine = (math.sqrt(1 + 32 * hybrid**2) - 1) / (8 * hybrid)
    half = math.asin(sine)
    return math.cos(half) + hybrid * math.sin(2 * half)


def triplet_loss(opt_GD: Tensor, sar_GD: Tensor, margin: float, hybrid: float) -> Tensor:
    """Triplet margin loss of a mixture of distance and cosine: scalar, 0 or more.

    With hybrid 0 it is `match_loss`, HardNet's. Otherwise each distance d becomes d - hybrid * cosine, up to a
    constant d + hybrid / 2 * d ** 2, divided by its largest slope by the angle (Tian et al., "HyNet",
    2020). The distance has its largest slope for alike vectors, the cosine for orthogonal ones.
    """
    positive_G, negative_G = hardest(opt_GD, sar_GD)
    scale = hybrid_scale(hybrid)
    positive_G = (positive_G + 0.5 * hybrid * positive_G * positive_G) / scale
    negative_G = (negative_G + 0.5 * hybrid * negative_G * negative_G) / scale
    return ops.relu(margin + positive_G - negative_G).mean()


def _distances(descriptors_GD: Tensor) -> Tensor:
    """Distances of unit vectors among each other: [G, G]."""
    return ops.sqrt(ops.relu(2.0 - 2.0 * ops.matmul(descriptors_GD, descriptors_GD.T)) + 1e-6)


def _near(distances_GG: Tensor) -> Tensor:
    """1 where a column is among the nearest of its row, which is not its own neighbour; else 0: [G, G]."""
    size = distances_GG.shape[0]
    distances_GG = ops.stop_gradient(distances_GG) + NEVER_NEAREST * ops.eye(size, size, ms.float32)
    nearest, _ = ops.topk(-distances_GG, min(NEIGHBOURS, size - 1))
    return ops.cast(-distances_GG >= nearest[:, -1:], ms.float32)


def second_order_loss(opt_GD: Tensor, sar_GD: Tensor) -> Tensor:
    """How much the distances to neighbours differ between the two modalities: scalar, 0 or more.

    For each pair, the Euclidean length of the differences over all neighbours, which are those of its
    optical and those of its SAR descriptor; the mean over pairs (Tian et al., "SOSNet", 2019).
    """
    opt_GG, sar_GG = _distances(opt_GD), _distances(sar_GD)
    near_GG = ops.maximum(_near(opt_GG), _near(sar_GG))
    difference_GG = (opt_GG - sar_GG) * near_GG
    return ops.sqrt((difference_GG * difference_GG).sum(axis=1) + 1e-12).mean()


def global_terms(opt_GD: Tensor, sar_GD: Tensor, recipe: Recipe) -> tuple[Tensor, ...]:
    """Every term of an objective of the global batch and, at the end, their total: scalars, as `loss_names`."""
    if recipe.objective == "triplet":
        main = triplet_loss(opt_GD, sar_GD, recipe.margin, recipe.hybrid)
    else:
        main = contrastive_loss(opt_GD, sar_GD, recipe.contrastive_temperature)
    if not recipe.second_order_weight:
        return main, main
    second_order = second_order_loss(opt_GD, sar_GD)
    return main, second_order, main + recipe.second_order_weight * second_order
