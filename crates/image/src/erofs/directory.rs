//! Directory blocks: entries in front, their names behind, sorted over the whole directory.
//!
//! Names are in order of their bytes, `.` and `..` among them, because the kernel searches by bisection, first for the
//! block and then in it.

use super::format::{BLOCK, DIRENT};

/// A name and what it stands for.
pub(super) struct Named<'a> {
    pub(super) name: &'a [u8],
    /// Address of the inode, in slots.
    pub(super) nid: u64,
    pub(super) file_type: u8,
}

/// How many bytes a directory with these names, in order, takes: whole blocks and what the last one holds.
pub(super) fn size<'a>(names: impl Iterator<Item = &'a [u8]>) -> u64 {
    let mut full = 0u64;
    let mut used = 0;
    for name in names {
        let more = DIRENT + name.len();
        if used + more > BLOCK {
            full += BLOCK as u64;
            used = 0;
        }
        used += more;
    }
    full + used as u64
}

/// The directory's bytes; as many as [`size`] said.
pub(super) fn encode(entries: &[Named<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = entries;
    while !rest.is_empty() {
        let mut used = 0;
        let count = rest
            .iter()
            .take_while(|entry| {
                used += DIRENT + entry.name.len();
                used <= BLOCK
            })
            .count();
        // A name and its entry are far smaller than a block, so there is always one.
        let (block, later) = rest.split_at(count.max(1));
        rest = later;
        out.resize(out.len().next_multiple_of(BLOCK), 0);
        let mut name_offset = block.len() * DIRENT;
        for entry in block {
            out.extend_from_slice(&entry.nid.to_le_bytes());
            out.extend_from_slice(&(name_offset as u16).to_le_bytes());
            out.extend_from_slice(&[entry.file_type, 0]);
            name_offset += entry.name.len();
        }
        for entry in block {
            out.extend_from_slice(entry.name);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(names: &[Vec<u8>]) -> Vec<u8> {
        let entries: Vec<Named<'_>> = names
            .iter()
            .map(|name| Named {
                name,
                nid: 1,
                file_type: 1,
            })
            .collect();
        let bytes = encode(&entries);
        assert_eq!(bytes.len() as u64, size(names.iter().map(Vec::as_slice)));
        bytes
    }

    #[test]
    fn the_size_is_known_before_the_contents() {
        check(&[]);
        check(&[b".".to_vec(), b"..".to_vec()]);
        for length in [1, 2, 50, 243, 244, 245, 255] {
            for count in [1, 15, 16, 17, 300, 1000] {
                check(&vec![vec![b'a'; length]; count]);
            }
        }
    }

    #[test]
    fn a_block_that_is_exactly_full_is_followed_by_no_empty_one() {
        // Sixteen entries of 12 + 244 bytes are 4096.
        assert_eq!(check(&vec![vec![b'a'; 244]; 16]).len(), 4096);
        assert_eq!(check(&vec![vec![b'a'; 244]; 17]).len(), 4096 + 256);
    }
}
