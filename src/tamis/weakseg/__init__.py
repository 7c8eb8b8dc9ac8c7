"""Segment cancer from image labels."""
