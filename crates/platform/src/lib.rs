//! How a guest kernel is run: the platform seam, the user-mode platform, and the probe.
