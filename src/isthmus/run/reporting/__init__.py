"""The page of a run: what it tells is gathered into ``report.json``, from which the page is drawn."""
