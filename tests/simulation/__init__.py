"""What is seen only in many repeats: random lives, a million subjects, ten million rows, guides played through."""
