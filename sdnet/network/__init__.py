"""The network: layers, normalisation, dropout, and how a CPU computes them."""
