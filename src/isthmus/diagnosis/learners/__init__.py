"""The diagnosis of any learner: the protocol, its rows and metrics, and the study that asks it."""
