"""Task families: environments that differ only in a task (a goal, a velocity, a direction)."""
