"""Benchmarking: many models of one table on equal terms, and what may be said of them."""

from isthmus.benchmarking.contest_command import Benchmark, benchmark, plan_benchmark

__all__ = ["Benchmark", "benchmark", "plan_benchmark"]
