"""Normalization layers, one file per method."""

from .batch_norm import BatchNorm

__all__ = ["BatchNorm"]
