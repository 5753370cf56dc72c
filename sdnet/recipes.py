"""Named, complete recipes; a job names one and may override any field. And the patches that they need."""

import math
from dataclasses import replace

from sdnet.config import PatchConfig, Recipe
from sdnet.errors import InputError

_SHIFT_PX = 4  # of a scene, for which there is room without a mirrored border

RECIPES: dict[str, Recipe] = {
    # The published recipe for SEN1-2 on one device; on eight devices lr is 0.01.
    "sen1_2": Recipe(),
    # Two minutes on two cores: enough steps for the synthetic pairs.
    "demo": Recipe(epochs=3, batch=50),
    # Our own; docs/recipes.md has its reasons and what was measured.
    "modern": Recipe(
        batch=100,
        objective="contrastive",
        normalisation="modality",
        orientation_channels=4,
        flips=True,
        rotation_deg=10.0,
        scale=0.12,
        jitter_px=2.0,
        align_scenes=True,
    ),
}


def edge_needed(recipe: Recipe) -> int:
    """The smallest even edge in pixels that holds every view of a recipe; 64 if it only flips.

    The shifts of scenes are not counted: where they need more, the border is mirrored.
    """
    angle = math.radians(recipe.rotation_deg)
    widest = PatchConfig().size * (1 + recipe.scale) * (math.cos(angle) + math.sin(angle))
    return 2 * math.ceil((widest + 2 * recipe.jitter_px) / 2 - 1e-9)


def patches_for(recipe: Recipe, patches: PatchConfig) -> PatchConfig:
    """What to prepare for a recipe: patches that are large enough, and shifts of scenes if it aligns them.

    Raises InputError for views that no stored patch holds.
    """
    needed, most = edge_needed(recipe), 2 * patches.size
    if needed > most:
        raise InputError(
            f"train.rotation_deg, train.scale and train.jitter_px together need patches of {needed} px, "
            f"and at most {most} px are stored; lower one of them"
        )
    room = 2 * _SHIFT_PX if recipe.align_scenes else 0
    stored_size = max(patches.stored_size, min(needed + room, most))
    return replace(patches, stored_size=stored_size, align=patches.align or recipe.align_scenes)
