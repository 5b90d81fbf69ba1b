"""Questions and answers: the control socket with both its ends, live captures, metrics."""
