"""How values find their ids, in memory or from files that are mapped."""
