"""From numbers to advice: the table of verdicts and the sentences that tell them."""
