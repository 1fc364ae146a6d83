//! The walls around the sandbox and kernel processes: namespaces, seccomp, Landlock; policy as data.
