//! Names of an archive, made safe.

/// Longest name of one directory entry, in bytes: what Linux and EROFS take.
pub(crate) const MAX_COMPONENT: usize = 255;

/// What is wrong with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameProblem {
    /// It contains `..`, with which it could leave the layer.
    #[error("\"..\" is not allowed in a name")]
    DotDot,
    /// It contains a NUL byte.
    #[error("a name cannot contain a NUL byte")]
    Nul,
    /// It is longer than the limit.
    #[error("the path is longer than {0} bytes")]
    PathTooLong(usize),
    /// One of its parts is longer than a file system takes.
    #[error("a part of the path is longer than 255 bytes")]
    ComponentTooLong,
    /// It is empty, or names the root where a file is wanted.
    #[error("it names no file")]
    Empty,
    /// It uses the prefix of whiteouts for something else.
    #[error("the prefix \".wh.\" is reserved for whiteouts")]
    Reserved,
}

/// Splits a path into its parts. A leading `/` and parts that are empty or `.` mean nothing, as for other
/// engines; the root is the empty list.
pub(crate) fn components(path: &[u8], max_path: usize) -> Result<Vec<&[u8]>, NameProblem> {
    if path.len() > max_path {
        return Err(NameProblem::PathTooLong(max_path));
    }
    if path.contains(&0) {
        return Err(NameProblem::Nul);
    }
    let mut parts = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(NameProblem::DotDot),
            _ if part.len() > MAX_COMPONENT => return Err(NameProblem::ComponentTooLong),
            _ => parts.push(part),
        }
    }
    Ok(parts)
}

/// Whether `name` can be a directory entry.
pub(crate) fn is_component(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..")
        && name.len() <= MAX_COMPONENT
        && !name.iter().any(|byte| matches!(byte, 0 | b'/'))
}

/// What an archive's name means in a layer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Meaning<'a> {
    /// The root directory itself.
    Root,
    /// A file system object.
    Object {
        parent: Vec<&'a [u8]>,
        name: &'a [u8],
    },
    /// `name` of the lower layers is removed.
    Whiteout {
        parent: Vec<&'a [u8]>,
        name: &'a [u8],
    },
    /// Everything of the lower layers in `directory` is removed.
    Opaque { directory: Vec<&'a [u8]> },
    /// Bookkeeping of AUFS, which means nothing here.
    Bookkeeping,
}

const WHITEOUT: &[u8] = b".wh.";
const WHITEOUT_META: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Splits a name and recognises whiteouts (OCI image specification, "Whiteouts").
pub(crate) fn meaning(path: &[u8], max_path: usize) -> Result<Meaning<'_>, NameProblem> {
    let mut parent = components(path, max_path)?;
    // GNU tar takes an empty name for ".", and so does Docker.
    let Some(name) = parent.pop() else {
        return Ok(Meaning::Root);
    };
    if parent.iter().any(|part| part.starts_with(WHITEOUT_META)) {
        return Ok(Meaning::Bookkeeping);
    }
    if parent.iter().any(|part| part.starts_with(WHITEOUT)) {
        return Err(NameProblem::Reserved);
    }
    if name == OPAQUE {
        return Ok(Meaning::Opaque { directory: parent });
    }
    if name.starts_with(WHITEOUT_META) {
        return Ok(Meaning::Bookkeeping);
    }
    match name.strip_prefix(WHITEOUT) {
        None => Ok(Meaning::Object { parent, name }),
        Some(hidden) if is_component(hidden) => Ok(Meaning::Whiteout {
            parent,
            name: hidden,
        }),
        // `.wh.`, `.wh..` and `.wh...` would hide nothing, the directory itself, or its parent.
        Some(_) => Err(NameProblem::Reserved),
    }
}

/// A name for people: quoted, control characters escaped, shortened.
pub(crate) fn show(path: &[u8]) -> String {
    const LONGEST: usize = 200;
    if path.len() <= LONGEST {
        format!("{:?}", String::from_utf8_lossy(path))
    } else {
        let head = path.get(..LONGEST).unwrap_or(path);
        format!("{:?}…", String::from_utf8_lossy(head))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object<'a>(parent: &[&'a [u8]], name: &'a [u8]) -> Result<Meaning<'a>, NameProblem> {
        Ok(Meaning::Object {
            parent: parent.to_vec(),
            name,
        })
    }

    #[test]
    fn leading_slashes_and_dots_mean_nothing() {
        assert_eq!(
            meaning(b"/etc/./passwd", 4095),
            object(&[b"etc"], b"passwd")
        );
        assert_eq!(
            meaning(b"./etc//passwd/", 4095),
            object(&[b"etc"], b"passwd")
        );
        assert_eq!(meaning(b"./", 4095), Ok(Meaning::Root));
        assert_eq!(meaning(b"/", 4095), Ok(Meaning::Root));
        assert_eq!(meaning(b"", 4095), Ok(Meaning::Root));
    }

    #[test]
    fn dot_dot_is_refused_wherever_it_stands() {
        for name in [&b".."[..], b"../x", b"a/../b", b"/..", b"a/.."] {
            assert_eq!(
                meaning(name, 4095),
                Err(NameProblem::DotDot),
                "{}",
                show(name)
            );
        }
    }

    #[test]
    fn whiteouts_are_recognised_and_cannot_hide_a_parent() {
        assert_eq!(
            meaning(b"a/.wh.b", 4095),
            Ok(Meaning::Whiteout {
                parent: vec![b"a"],
                name: b"b"
            })
        );
        assert_eq!(
            meaning(b"a/.wh..wh..opq", 4095),
            Ok(Meaning::Opaque {
                directory: vec![b"a"]
            })
        );
        assert_eq!(
            meaning(b"a/.wh..hidden", 4095),
            Ok(Meaning::Whiteout {
                parent: vec![b"a"],
                name: b".hidden"
            })
        );
        for name in [&b".wh."[..], b"a/.wh..", b"a/.wh...", b".wh.a/b"] {
            assert_eq!(
                meaning(name, 4095),
                Err(NameProblem::Reserved),
                "{}",
                show(name)
            );
        }
        assert_eq!(meaning(b".wh..wh.plnk/1.2", 4095), Ok(Meaning::Bookkeeping));
        assert_eq!(meaning(b".wh..wh.aufs", 4095), Ok(Meaning::Bookkeeping));
    }

    #[test]
    fn names_that_no_file_system_takes_are_refused() {
        assert_eq!(meaning(b"a\0b", 4095), Err(NameProblem::Nul));
        assert_eq!(
            meaning(&[b'a'; 256], 4095),
            Err(NameProblem::ComponentTooLong)
        );
        assert_eq!(meaning(b"a/b/c", 4), Err(NameProblem::PathTooLong(4)));
        assert!(meaning(&[b'a'; 255], 4095).is_ok());
    }

    #[test]
    fn shown_names_cannot_disturb_a_terminal() {
        assert_eq!(show(b"a\x1b[2J\nb"), "\"a\\u{1b}[2J\\nb\"");
        assert!(show(&[b'a'; 5000]).chars().count() < 210);
    }
}
