"""Examines a data file: what it is, whether it is sound, whether what it says makes sense, what to do.

Rule: it only looks; what is wrong is told in plain words, each with what to do about it.
"""

from coordd.doctor.examination import examine
from coordd.doctor.report import Finding, Gravity, Report

__all__ = ["Finding", "Gravity", "Report", "examine"]
