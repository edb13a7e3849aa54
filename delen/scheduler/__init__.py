"""Which jobs run which segment next. Pure: time and costs are arguments."""
