"""Finds optical points in the SAR image: features, correlation surfaces, and the searches over them."""
