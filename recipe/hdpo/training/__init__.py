"""Training: verl's trainer and actor worker, with the teacher pass and both loss terms. Imports verl and Ray."""
