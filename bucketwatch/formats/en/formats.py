"""Times as all of our pages write them; Django's own would be "Nov. 24, 2026, 4:18 a.m."."""

DATE_FORMAT = "Y-m-d"
TIME_FORMAT = "H:i:s"
DATETIME_FORMAT = "Y-m-d H:i:s T"
