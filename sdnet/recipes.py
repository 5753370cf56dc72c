"""Named, complete recipes; a job names one and may override any field."""

from sdnet.config import Recipe

RECIPES: dict[str, Recipe] = {
    # The published recipe for SEN1-2 on one device; on eight devices lr is 0.01.
    "sen1_2": Recipe(),
    # Two minutes on two cores: enough steps for the synthetic pairs.
    "demo": Recipe(epochs=3, batch=50),
    # Our own; docs/recipes.md measures each of its ingredients.
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
