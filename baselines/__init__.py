"""What MAML is compared with: a file a method, and what trains or translates it."""
