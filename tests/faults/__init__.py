"""Fault injection: full disks, no descriptors, kills, clock steps, partitions, overload."""
