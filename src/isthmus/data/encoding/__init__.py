"""From raw values to ids and numbers: fitted on train rows, used alike at fit and at serve."""
