"""Measurements of speed and memory for `metarl bench`: medians over repeats, on one machine.

Hardware limits are measured first (`hardware`); then the parts in `parts`: how fast sampling is
compared with plain physics, where the time of a meta-iteration goes, how time and memory grow, how
fast supervised learning is, and what a concurrent training costs.
"""
