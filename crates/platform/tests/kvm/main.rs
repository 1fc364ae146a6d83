//! Machines on KVM, as far as this host can run them.
//!
//! `bare` needs a /dev/kvm that can run a few instructions, which also one that interprets them can; `linux` needs
//! hardware virtualization. What cannot run says so on a line that begins with `CANNOT RUN`.

mod ahead;
mod bare;
mod code;
mod files;
mod linux;
mod rig;
