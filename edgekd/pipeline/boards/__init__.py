"""What runs on boards: deploy, measure, compare, calibrate."""
