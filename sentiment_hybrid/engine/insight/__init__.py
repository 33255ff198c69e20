"""What data and answers tell: label errors, duplicates, outliers, other languages, tokens that give labels away."""
