"""Methods that MAML is compared with, one file each, and their training."""
