"""The HTTP service of `senthy serve`: requests in micro-batches, one model, a page for people"""
