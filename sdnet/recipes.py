"""Named, complete recipes; a job names one and may override any field."""

from sdnet.config import Recipe

RECIPES: dict[str, Recipe] = {
    # The published recipe for SEN1-2 on one device; on eight devices lr is 0.01.
    "sen1_2": Recipe(),
    # Two minutes on two cores: enough steps for the synthetic pairs.
    "demo": Recipe(epochs=3, batch=50),
}
