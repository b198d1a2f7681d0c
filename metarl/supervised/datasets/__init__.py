"""Omniglot and MiniImagenet, from any form in which people have them to one array of images."""
