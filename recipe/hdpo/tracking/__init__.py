"""What is counted, remembered in checkpoints and logged. Imports neither verl nor Ray."""
