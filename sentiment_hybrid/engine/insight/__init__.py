"""What data and answers reveal: label errors, duplicates, outliers, giveaway tokens, words that push to a label."""
