"""Measurements of the project itself: peers, scale-out, goals. No part of the distribution."""
