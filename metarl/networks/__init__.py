"""Networks as stateless functions of a parameter dictionary, for one task or for many.

Every network serves one task or many. Where its parameters are stacked over tasks, (N, ...), so are
its inputs, and each task has weights of its own: one call a layer for all of them.
"""
