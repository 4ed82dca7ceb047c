"""The doctor: reads a data set and says what is wrong with it, where, and how to mend it."""

from segue.doctor.examination import Examination, examine
from segue.doctor.faults import KINDS, Fault
from segue.doctor.quick import quick_check

__all__ = ["KINDS", "Examination", "Fault", "examine", "quick_check"]
