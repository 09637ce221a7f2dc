"""The parts of the documents that are made, not written: numbers and tables, from result files and YAML comments."""
