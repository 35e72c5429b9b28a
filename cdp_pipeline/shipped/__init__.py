"""Traits and audiences that come with the house: made of whatever a project's sources can tell, each overridable."""
