"""Steps of tools/gpu_check.py: functions that yield parts of their record as they become known."""
