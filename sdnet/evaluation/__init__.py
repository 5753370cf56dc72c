"""Evaluation: distances, exact rates with their uncertainty, and retrieval."""
