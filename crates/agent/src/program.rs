//! Which file a command names, and how a failure to execute it is told.

use std::ffi::CString;

use nix::errno::Errno;

/// What Docker puts into every container's environment, and what a container without `PATH` gets.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What became of a command that could not be executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoProgram {
    /// No such file, or none in `PATH` that is executable.
    Missing,
    /// There is a file, but not one that can be executed.
    Refused(Errno),
    /// The file is there and executable, and executing it failed all the same: a missing
    /// interpreter, a foreign format.
    Failed(Errno),
}

/// The files to try in order. A command with a slash is taken as it is.
pub(crate) fn candidates(
    command: &str,
    env: &[String],
) -> Result<Vec<CString>, std::ffi::NulError> {
    if command.contains('/') || command.is_empty() {
        return Ok(vec![CString::new(command)?]);
    }
    let path = env
        .iter()
        .rev()
        .find_map(|entry| entry.strip_prefix("PATH="))
        .unwrap_or(DEFAULT_PATH);
    path.split(':')
        .map(|directory| {
            let directory = if directory.is_empty() { "." } else { directory };
            CString::new(format!("{directory}/{command}"))
        })
        .collect()
}

/// An error number as Go, and so Docker, words it.
pub(crate) fn describe(errno: Errno) -> String {
    let text = errno.desc();
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| {
        first.to_lowercase().chain(chars).collect()
    })
}

/// The sentence for a user, in Docker's words.
pub(crate) fn explain(command: &str, file: &str, problem: NoProgram) -> String {
    match problem {
        NoProgram::Missing if command.contains('/') => {
            format!("exec: \"{command}\": stat {command}: no such file or directory")
        }
        NoProgram::Missing => format!("exec: \"{command}\": executable file not found in $PATH"),
        NoProgram::Refused(errno) => format!("exec: \"{command}\": {}", describe(errno)),
        NoProgram::Failed(errno) => format!("exec {file}: {}", describe(errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn try_list(command: &str, env: &[&str]) -> Vec<String> {
        let env: Vec<String> = env.iter().map(|entry| (*entry).to_owned()).collect();
        candidates(command, &env)
            .unwrap()
            .into_iter()
            .map(|path| path.into_string().unwrap())
            .collect()
    }

    #[test]
    fn a_bare_name_is_looked_for_in_the_containers_path() {
        assert_eq!(try_list("sh", &["PATH=/a:/b"]), ["/a/sh", "/b/sh"]);
        assert_eq!(
            try_list("sh", &["PATH=/a", "X=1", "PATH=/last"]),
            ["/last/sh"]
        );
        assert_eq!(try_list("sh", &["PATH=:/a"]), ["./sh", "/a/sh"]);
        assert!(try_list("sh", &[]).contains(&"/usr/bin/sh".to_owned()));
    }

    #[test]
    fn a_command_with_a_slash_is_taken_as_it_is() {
        assert_eq!(try_list("/bin/sh", &["PATH=/a"]), ["/bin/sh"]);
        assert_eq!(try_list("bin/sh", &["PATH=/a"]), ["bin/sh"]);
    }

    #[test]
    fn failures_read_as_in_docker() {
        assert_eq!(
            explain("foo", "", NoProgram::Missing),
            "exec: \"foo\": executable file not found in $PATH"
        );
        assert_eq!(
            explain("/foo", "/foo", NoProgram::Missing),
            "exec: \"/foo\": stat /foo: no such file or directory"
        );
        assert_eq!(
            explain(
                "/etc/passwd",
                "/etc/passwd",
                NoProgram::Refused(Errno::EACCES)
            ),
            "exec: \"/etc/passwd\": permission denied"
        );
        assert_eq!(
            explain("/bin/arm", "/bin/arm", NoProgram::Failed(Errno::ENOEXEC)),
            "exec /bin/arm: exec format error"
        );
    }
}
