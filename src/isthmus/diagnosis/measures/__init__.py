"""What a diagnosis measures beside the net effect: who does it, how alike domains are, what width does."""
