"""What the encoder is fitted from, gathered block by block, and by several processes."""
