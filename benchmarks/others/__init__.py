"""Other servers, for comparison: the least that does what the workloads ask."""
