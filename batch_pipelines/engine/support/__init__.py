"""What a colleague needs to help with a batch, in one file: no value of a row, and no secret."""
