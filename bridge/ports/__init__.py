"""The ports: where frames enter and leave. Devices, memory, captures, and faults for tests."""
