"""What data and answers tell: label errors, duplicates, outliers, giveaway tokens, words that push to a label."""
