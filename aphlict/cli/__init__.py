"""The commands: they print and make an exit status, nothing else."""
