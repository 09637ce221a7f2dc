"""verl's data rows: how they are built, checked and read. Imports pyarrow and the standard library, not verl."""
