//! Between the engine's description of a process and the wire's.

use bulkhead_types::{ExitStatus, ProcessSpec, TmpfsOptions};

use crate::api::{Process, Rlimit, Tmpfs, WaitProcessResponse};

impl From<&ProcessSpec> for Process {
    fn from(spec: &ProcessSpec) -> Self {
        let mut process = Process::new();
        process.args = spec.args.clone();
        process.env = spec.env.clone();
        process.cwd = spec.cwd.clone();
        process.user = spec.user.clone();
        process.capabilities = spec.capabilities.bits();
        process.rlimits = spec.rlimits.iter().map(Rlimit::from).collect();
        process.no_new_privileges = spec.no_new_privileges;
        process.terminal = spec.terminal;
        if let Some(size) = spec.terminal_size {
            process.rows = size.rows.into();
            process.columns = size.columns.into();
        }
        process
    }
}

impl From<&bulkhead_types::Rlimit> for Rlimit {
    fn from(limit: &bulkhead_types::Rlimit) -> Self {
        let mut out = Rlimit::new();
        out.resource = limit.resource.number().into();
        out.soft = limit.soft;
        out.hard = limit.hard;
        out
    }
}

impl Tmpfs {
    /// A tmpfs at `target`, an absolute path in the container.
    pub fn at(target: &str, options: &TmpfsOptions) -> Self {
        let mut out = Self::new();
        out.target = target.to_owned();
        out.flags = options.flags();
        out.data = options.data().to_owned();
        out.keep_mode = !options.has_mode();
        out
    }
}

impl From<&WaitProcessResponse> for ExitStatus {
    /// The guest may send any number; what does not fit is the greatest code that does.
    fn from(response: &WaitProcessResponse) -> Self {
        Self {
            code: u8::try_from(response.exit_code).unwrap_or(u8::MAX),
            oom_killed: response.oom_killed,
        }
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_types::{Capabilities, Resource, TerminalSize};

    use super::*;

    #[test]
    fn every_part_of_a_process_reaches_the_wire() {
        let spec = ProcessSpec {
            args: vec!["sh".into(), "-c".into()],
            env: vec!["A=b".into()],
            cwd: "/srv".into(),
            user: "www:adm".into(),
            capabilities: Capabilities::named("CHOWN").unwrap(),
            rlimits: vec![bulkhead_types::Rlimit {
                resource: Resource::NOFILE,
                soft: 1,
                hard: u64::MAX,
            }],
            no_new_privileges: true,
            terminal: true,
            terminal_size: Some(TerminalSize {
                rows: 24,
                columns: 80,
            }),
        };
        let wire = Process::from(&spec);
        assert_eq!(wire.args, spec.args);
        assert_eq!(wire.env, spec.env);
        assert_eq!(wire.cwd, "/srv");
        assert_eq!(wire.user, "www:adm");
        assert_eq!(wire.capabilities, 1);
        assert_eq!(wire.rlimits.len(), 1);
        assert_eq!(wire.rlimits[0].resource, 7);
        assert_eq!((wire.rlimits[0].soft, wire.rlimits[0].hard), (1, u64::MAX));
        assert!(wire.no_new_privileges && wire.terminal);
        assert_eq!((wire.rows, wire.columns), (24, 80));
    }

    #[test]
    fn options_of_a_tmpfs_reach_the_wire_parsed() {
        let wire = Tmpfs::at("/t", &"size=1m,exec,ro".parse().unwrap());
        assert_eq!(
            (wire.target.as_str(), wire.data.as_str()),
            ("/t", "size=1m")
        );
        assert_eq!((wire.flags, wire.keep_mode), (0b111, true));
        assert!(!Tmpfs::at("/t", &"mode=755".parse().unwrap()).keep_mode);
    }

    #[test]
    fn a_hostile_exit_code_stays_a_code() {
        let mut response = WaitProcessResponse::new();
        response.exit_code = 70_000;
        response.oom_killed = true;
        assert_eq!(
            ExitStatus::from(&response),
            ExitStatus {
                code: 255,
                oom_killed: true
            }
        );
        response.exit_code = 137;
        assert_eq!(ExitStatus::from(&response).code, 137);
    }
}
