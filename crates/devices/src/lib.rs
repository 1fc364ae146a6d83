//! Virtio devices and their transports; they know queues and guest memory, never a hypervisor.
