"""The three published losses of SDNet, each term by itself and unweighted, and the contrastive loss.

Source: sections on loss in IEEE TGRS 2022, document 9770793.
Shape letters: B batch of one slice, G global batch, D descriptor length (128).
"""

import mindspore as ms
from mindspore import Tensor, ops

from sdnet.config import Recipe
from sdnet.model import Outputs

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
# What a step reports, by objective: every term, and at the end the weighted total.
LOSS_NAMES = {"published": (*TERMS, "total"), "contrastive": ("contrastive", "total")}
NEVER_NEAREST = (
    10.0  # added to distances that must not be chosen as negatives; unit vectors are 2 apart at most
)
DUPLICATE = 0.008  # a negative nearer than this shows the same ground


def match_loss(anchor_BD: Tensor, positive_BD: Tensor, margin: float) -> Tensor:
    """Triplet margin loss against the hardest negative of the batch: scalar, 0 or more.

    The negative of pair i is the nearest other descriptor to either of its two sides, near
    duplicates left out.
    """
    squared = (anchor_BD * anchor_BD).sum(axis=1, keepdims=True)
    squared = squared + (positive_BD * positive_BD).sum(axis=1, keepdims=True).T
    products = ops.matmul(anchor_BD, positive_BD.T)
    distance_BB = ops.sqrt(squared - 2.0 * products + 1e-6) + 1e-8
    diagonal_BB = ops.eye(distance_BB.shape[0], distance_BB.shape[0], ms.float32)
    positive_B = (distance_BB * diagonal_BB).sum(axis=1)
    barred_BB = distance_BB + NEVER_NEAREST * diagonal_BB
    barred_BB = barred_BB + NEVER_NEAREST * ops.cast(barred_BB < DUPLICATE, ms.float32)
    negative_B = ops.minimum(barred_BB.min(axis=1), barred_BB.min(axis=0))
    return ops.relu(margin + positive_B - negative_B).mean()


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
