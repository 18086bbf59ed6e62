"""The only training code: one loop, the KD objectives, the QAT schedule, teacher passes."""
