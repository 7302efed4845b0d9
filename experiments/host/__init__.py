"""This machine and its node agent: show, apply, restore, persist."""
