"""The event loop: epoll, timers and signals, the threads beside it, and the CPU that it stays on."""
