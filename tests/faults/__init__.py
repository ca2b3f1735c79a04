"""Real processes in a world that fails: full disks, no descriptors, kills, clocks, partitions, storms."""
