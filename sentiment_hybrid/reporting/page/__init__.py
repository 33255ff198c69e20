"""The page of `senthy report`: self-contained HTML with inline figures."""
