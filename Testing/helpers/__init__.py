"""Builders of inputs, scenes, weights and processes that the tests share."""
