"""Chaos: the real processes under a steady load, while a seeded schedule breaks everything around them; then a checker
holds the whole history against the promises. `python -m tests.chaos --seed 1 --minutes 5`; docs/reliability.md says
what is promised and what was found."""
