"""The manual is true: its examples are run, its links lead somewhere, its picture of the house is right."""
