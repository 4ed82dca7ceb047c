"""What to train: the settings of a training, and a table of them by name."""

from segue.recipes.recipe import Recipe
from segue.recipes.table import RECIPES, get_recipe

__all__ = ["RECIPES", "Recipe", "get_recipe"]
