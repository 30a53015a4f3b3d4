"""What the tests with QEMU are made of: tools, virtual machines, guests, the kernel as judge."""
