"""A minimal Flower app that asks every node for an echo, for ``bench/exchange.py``; bundled for stock Flower, installed for ours."""
