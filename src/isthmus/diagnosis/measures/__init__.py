"""Measures beside the net effect: who helps whom, how alike domains are, what width does."""
