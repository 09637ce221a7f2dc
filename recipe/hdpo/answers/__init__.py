"""What an answer is and when two are the same: text, numbers, units, words, lists and sets, expressions."""
