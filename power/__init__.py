"""Where joules come from: power sources behind one protocol, and the accounts they give."""
