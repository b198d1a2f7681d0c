"""Supervised few-shot learning: images, episodes, and learners of them."""
